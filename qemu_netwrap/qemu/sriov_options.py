"""The word `sriov`: a virtual function of a NIC of the host, in -nic and -netdev."""

from __future__ import annotations

from qemu_netwrap.model import mac, names
from qemu_netwrap.model.numbers import BOOLEANS, parse_uint32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu.json_options import JsonObject
    from qemu_netwrap.qemu.keyval import OptList

KEYS = tuple("id pf vf mac vlan spoofchk trust max_tx_rate".split())
_BOOLEANS = ("spoofchk", "trust")
_LARGEST = {"vf": 0xFFFF, "vlan": 4094, "max_tx_rate": 0xFFFFFFFF}


def fault(form: str, opts: OptList | JsonObject) -> str:
    """Say what is wrong with a `sriov` in option FORM; empty if nothing is seen to be."""
    if form == "net":
        return "'sriov' cannot be on a hub: write it as -nic"
    for key in opts:
        if key not in (*KEYS, "type"):
            return f"Invalid parameter '{key}'"
    if names.ifname_fault(opts.get("pf") or ""):
        return "Parameter 'pf' expects an interface's name"
    found = (_value_fault(key, opts.get(key) or "") for key in opts)
    return next(filter(None, found), "")


def _value_fault(key: str, value: str) -> str:
    """Say what is wrong with the value of KEY."""
    if key in _BOOLEANS and value not in BOOLEANS:
        return f"Parameter '{key}' expects 'on' or 'off'"
    if key in _LARGEST:
        number = parse_uint32(value)
        if number is None or number > _LARGEST[key]:
            return f"Parameter '{key}' expects a number up to {_LARGEST[key]}"
    if key == "mac":
        try:
            mac.parse(value)
        except ValueError as error:
            return str(error)
    return ""


def settings(opts: OptList | JsonObject) -> dict[str, str]:
    """Return what the VF is to be set to, as the kernel counts: keys of `VfSettings`, no MAC."""
    given = {key: value for key in opts if (value := opts.get(key)) is not None}
    found = {key: str(int(BOOLEANS[given[key]])) for key in _BOOLEANS if key in given}
    numbers = (key for key in ("vlan", "max_tx_rate") if key in given)
    return found | {key: str(parse_uint32(given[key])) for key in numbers}
