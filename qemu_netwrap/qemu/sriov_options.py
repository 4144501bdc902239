"""The word `sriov`: a virtual function of a NIC of the host, in -nic and -netdev."""

from __future__ import annotations

from qemu_netwrap.model import mac, names
from qemu_netwrap.qemu.numbers import BOOLEANS, parse_uint32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu.netdev_options import NetOption

KEYS = tuple("id pf vf mac vlan spoofchk trust max_tx_rate".split())
_BOOLEANS = ("spoofchk", "trust")
_LARGEST = {"vf": 0xFFFF, "vlan": 4094, "max_tx_rate": 0xFFFFFFFF}


def fault(net: NetOption) -> str:
    """Say what is wrong with a `sriov`, in QEMU's manner; empty if nothing is seen to be."""
    if net.form == "net":
        return "'sriov' cannot be on a hub: write it as -nic"
    for key in net.opts:
        if key not in (*KEYS, "type"):
            return f"Invalid parameter '{key}'"
    if names.ifname_fault(net.value("pf")):
        return "Parameter 'pf' expects an interface's name"
    found = (_value_fault(key, net.value(key)) for key in net.opts)
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


def settings(net: NetOption) -> dict[str, str]:
    """Return what the VF is to be set to, as the kernel counts: keys of `VfSettings`, no MAC."""
    found = {key: str(int(BOOLEANS[net.value(key)])) for key in _BOOLEANS if net.has(key)}
    for key in ("vlan", "max_tx_rate"):
        if net.has(key):
            found[key] = str(parse_uint32(net.value(key)))
    return found
