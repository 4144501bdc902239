"""Network types that neither QEMU nor qemu-netwrap has, and the ones that were meant.

Only loaded for an error message.
"""

from __future__ import annotations

from qemu_netwrap import model
from qemu_netwrap.qemu import netdev_options, netdev_schema

# Other programs' words: libvirt's modes of forwarding, VirtualBox's and VMware's attachments.
_OTHERS = {
    "hostonly": "host-only", "host": "host-only", "internal": "host-only", "intnet": "host-only",
    "private": "host-only", "isolated": "host-only",
    "bridged": "bridge", "br": "bridge", "masquerade": "nat", "natnetwork": "nat",
    "slirp": "user", "usermode": "user", "pasta": "passt", "vhost": "vhost-user",
    "vfio": "sriov", "sr-iov": "sriov", "vf": "sriov", "vlan": "tap", "tun": "tap",
}  # fmt: skip


def type_meant(word: str) -> str:
    """Return the network type that WORD was most likely meant for; "" if none is like it."""
    plain = word.lower().replace("_", "-")
    if not plain[:1].isalpha():
        return ""  # rather an option, whose own argument is missing
    known = sorted({*netdev_schema.TYPES, *netdev_options.OUR_TYPES, netdev_options.SRIOV})
    if plain in known:
        return plain
    return _OTHERS.get(plain.replace("-net", ""), "") or model.suggest.nearest(plain, known, 0.7)
