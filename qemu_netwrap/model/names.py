"""Names that are visible on the host or in DNS: what is valid, and how names are generated."""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES = ("utf-8", "surrogateescape")
IFNAME_BYTES = 15  # IFNAMSIZ less its NUL, linux/if.h
_KERNELS_OWN = ("all", "default")  # net/core/sysctl_net_core.c, `sysctl_dev_name_is_allowed`
_FIRST = {"-": "%2D", ".": "%2E"}  # encoded at the start of a file's name
# Names that programs look up by themselves: a guest with one would be taken for that server.
RESERVED = frozenset({"isatap", "localhost", "wpad"})
_LABEL_BYTES, _NAME_BYTES = 63, 253  # RFC 1035, section 2.3.4


def ifname_fault(name: str) -> str:
    """Return why NAME cannot name a network interface; "" if it can.

    The rules are those of the kernel's `dev_valid_name` (net/core/dev.c), and no `%`, which the
    kernel would replace by a number.
    """
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogateescape")) > IFNAME_BYTES:
        return f"is over {IFNAME_BYTES} bytes long"
    if name in _KERNELS_OWN:
        return "is one that the kernel uses for all interfaces together"
    if name in (".", "..") or any(c in "/:%" or c.isspace() or not c.isprintable() for c in name):
        return "has a character that interface names cannot have"
    return ""


def as_qemu_cuts(ifname: str) -> str:
    """Return an ifname as QEMU passes it to the kernel: its first 15 bytes (net/tap-linux.c)."""
    raw = ifname.encode("utf-8", "surrogateescape")[:IFNAME_BYTES]
    return raw.decode("utf-8", "surrogateescape")


def numbered(pattern: str) -> tuple[str, ...]:
    """Return the names that the kernel would try for PATTERN, `vm%d` say; () if it is no pattern.

    The kernel takes the first free one (net/core/dev.c, `__dev_alloc_name`); this stops at 100.
    """
    if pattern.count("%") != 1 or "%d" not in pattern:
        return ()
    return tuple(pattern.replace("%d", str(number)) for number in range(100))


def network_name_fault(name: str) -> str:
    """Return why NAME cannot name a network; "" if it can."""
    plain = name.replace("-", "").replace("_", "")
    if name and name[0].isalpha() and name.isascii() and (plain.isalnum() or not plain):
        return "" if len(name) <= 32 else "is over 32 characters long"
    return "must begin with a letter and go on with letters, digits, - and _"


def bridge_name(network: str) -> str:
    """Return the default bridge of a network: `qn-` and its name, shortened to 15 bytes."""
    name = f"qn-{network}"
    if len(name) <= IFNAME_BYTES:
        return name
    digest = zlib.crc32(network.encode()) & 0xFFFF
    return f"{name[: IFNAME_BYTES - 5]}-{digest:04x}"


def tap_name(run: str, index: int) -> str:
    """Return the tap of a run's NIC: it contains the run's name, which is QEMU's process id."""
    return f"qn{run}-{index}"


def host_label(name: str) -> str:
    """Return NAME as a DNS label (RFC 1123); empty if no valid character is left."""
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:_LABEL_BYTES]
    return label.strip("-").lower()


def is_host_name(name: str) -> bool:
    """Whether NAME can name a host in DNS: labels (RFC 1123) separated by dots."""
    labels = name.split(".")
    return len(name) <= _NAME_BYTES and all(
        label and len(label) <= _LABEL_BYTES and label.lower() == host_label(label)
        for label in labels
    )


def guest_names(guest: str) -> Iterator[str]:
    """Yield host names for a guest's NICs on one network, empty ones for a guest without a name.

    They must differ: the first is the guest's own, the others have a number appended.
    """
    yield "" if guest in RESERVED else guest
    number = 1
    while True:
        tail = f"-{number}"
        yield f"{guest[: _LABEL_BYTES - len(tail)]}{tail}" if guest else ""
        number += 1


def as_file(name: str) -> str:
    """Return the name of the file for NAME in the state folder.

    Names from outside must not collide with the folder's own files, which begin with `-`, nor with
    hidden files, nor with temporary files, which end with `~`. Most names stay as they are.
    """
    name = name.replace("%", "%25")
    if name[:1] in _FIRST:
        name = f"{_FIRST[name[0]]}{name[1:]}"
    return f"{name[:-1]}%7E" if name.endswith("~") else name


def of_file(file: str) -> str:
    """Return the name for which `as_file` returned FILE."""
    if "%" not in file:
        return file
    for char, code in (*_FIRST.items(), ("~", "%7E"), ("%", "%25")):
        file = file.replace(code, char)
    return file


def quotable(name: str) -> bool:
    """Whether nft takes NAME in quotes literally; a `*` would be a wildcard there."""
    return name.isascii() and name.isprintable() and not any(c in name for c in '"\\*')


def in_chain_name(name: str) -> str:
    """Return any NAME encoded as a part of a chain's name, which nft cannot quote."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "-.") else f"_{c.encode(*_BYTES).hex()}_"
        for c in name
    )


def plain_ifname(name: str) -> bool:
    """Whether NAME needs no quotes in the input of nft and dnsmasq."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return name.isascii() and name[:1].isalpha() and (plain.isalnum())
