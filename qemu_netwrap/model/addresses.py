"""Addresses of both families: parsed once, and from then on used in canonical form.

Python's `ipaddress` accepts anything after a `%` as an IPv6 scope, even line ends.
"""

from __future__ import annotations

import ipaddress

from qemu_netwrap.model import names


def read(text: str, *, scoped: bool = False) -> str:
    """Return the address in TEXT in canonical form. Raises `ValueError`.

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
