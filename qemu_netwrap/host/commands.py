"""Commands off the launch path, by sh."""

from __future__ import annotations

import sh

from qemu_netwrap.host.nft import TABLE
from qemu_netwrap.host.which import SBIN, find


def our_rules() -> str | None:
    """Return our nftables table as nft(8) lists it, empty when it is not there.

    None when nft is not there, or may not be asked.
    """
    program = find("nft", SBIN)
    if not program:
        return None
    nft = sh.Command(program).bake(_tty_out=False, _env={"LC_ALL": "C"})
    try:
        return str(nft("list", "table", *TABLE.split()))
    except sh.ErrorReturnCode as error:
        return "" if b"No such file" in error.stderr else None
