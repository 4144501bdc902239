"""Addresses of either family: read once, and written from then on in their parsed form.

Python's `ipaddress` takes anything behind a `%` for an IPv6 scope, line ends too.
"""

from __future__ import annotations

import ipaddress

from qemu_netwrap.model import names


def read(text: str, *, scoped: bool = False) -> str:
    """Return the address that TEXT is, spelt as everywhere. Raises `ValueError`.

    With SCOPED, a link-local IPv6 address may name its interface (`fe80::1%eth0`).
    """
    plain, percent, scope = text.partition("%")
    address = ipaddress.ip_address(plain)
    if not percent:
        return str(address)
    if not (scoped and address.version == 6 and address.is_link_local):
        raise ValueError(f"{text!r}: no interface can be named by % here")
    if names.ifname_fault(scope) or not names.plain_ifname(scope):
        raise ValueError(f"{text!r}: what follows % is no interface's name")
    return f"{address}%{scope}"
