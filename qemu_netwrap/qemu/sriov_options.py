"""The netdev type `sriov` of -nic and -netdev: a virtual function of a host NIC."""

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
    """Return what is wrong with a `sriov` in option FORM; "" if no fault is found."""
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
    """Return what is wrong with the value of KEY, or ""."""
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
    """Return the VF's settings without its MAC, as decimal numbers by key of `VfSettings`."""
    given = {key: value for key in opts if (value := opts.get(key)) is not None}
    found = {key: str(int(BOOLEANS[given[key]])) for key in _BOOLEANS if key in given}
    numbers = (key for key in ("vlan", "max_tx_rate") if key in given)
    return found | {key: str(parse_uint32(given[key])) for key in numbers}
