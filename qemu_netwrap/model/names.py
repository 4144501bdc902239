"""Names that show on the host or in DNS: what is allowed, and how ours are made."""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES = ("utf-8", "surrogateescape")
IFNAME_BYTES = 15  # IFNAMSIZ less its NUL, linux/if.h
_KERNELS_OWN = ("all", "default")  # net/core/sysctl_net_core.c, `sysctl_dev_name_is_allowed`
_FIRST = {"-": "%2D", ".": "%2E"}  # what no file about a name from outside begins with
# Names that programs look for by themselves: who had one would be believed to be something else.
RESERVED = frozenset({"isatap", "localhost", "wpad"})
_LABEL_BYTES, _NAME_BYTES = 63, 253  # RFC 1035, section 2.3.4


def ifname_fault(name: str) -> str:
    """Say why NAME cannot name a network interface; empty if it can.

    The rules are those of the kernel's `dev_valid_name` (net/core/dev.c), and no `%`, by which
    the kernel would choose a number.
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
    """Return an ifname as QEMU hands it to the kernel: its first 15 bytes (net/tap-linux.c)."""
    raw = ifname.encode("utf-8", "surrogateescape")[:IFNAME_BYTES]
    return raw.decode("utf-8", "surrogateescape")


def numbered(pattern: str) -> tuple[str, ...]:
    """Return the names that the kernel would try for PATTERN, `vm%d` say; none if it is no pattern.

    It takes the first that is free (net/core/dev.c, `__dev_alloc_name`); we stop at 100.
    """
    if pattern.count("%") != 1 or "%d" not in pattern:
        return ()
    return tuple(pattern.replace("%d", str(number)) for number in range(100))


def network_name_fault(name: str) -> str:
    """Say why NAME cannot name a network; empty if it can."""
    plain = name.replace("-", "").replace("_", "")
    if name and name[0].isalpha() and name.isascii() and (plain.isalnum() or not plain):
        return "" if len(name) <= 32 else "is over 32 characters long"
    return "must begin with a letter and go on with letters, digits, - and _"


def bridge_name(network: str) -> str:
    """Return the bridge of a network that names none: `qn-` and its name, shortened if need be."""
    name = f"qn-{network}"
    if len(name) <= IFNAME_BYTES:
        return name
    digest = zlib.crc32(network.encode()) & 0xFFFF
    return f"{name[: IFNAME_BYTES - 5]}-{digest:04x}"


def tap_name(run: str, index: int) -> str:
    """Return the tap of a run's NIC: it tells the run, which is QEMU's process id."""
    return f"qn{run}-{index}"


def host_label(name: str) -> str:
    """Return NAME as a DNS label (RFC 1123), empty when nothing is left of it."""
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:_LABEL_BYTES]
    return label.strip("-").lower()


def is_host_name(name: str) -> bool:
    """Whether NAME can name a host in DNS: labels (RFC 1123) with dots between."""
    labels = name.split(".")
    return len(name) <= _NAME_BYTES and all(
        label and len(label) <= _LABEL_BYTES and label.lower() == host_label(label)
        for label in labels
    )


def guest_names(guest: str) -> Iterator[str]:
    """Yield the host names of a guest's NICs on one network, empty ones for a nameless guest.

    They must differ: the first is the guest's own, the others have a number behind it.
    """
    yield "" if guest in RESERVED else guest
    number = 1
    while True:
        tail = f"-{number}"
        yield f"{guest[: _LABEL_BYTES - len(tail)]}{tail}" if guest else ""
        number += 1


def as_file(name: str) -> str:
    """Return what a file of the state folder is called that is about NAME.

    Names from outside must not meet those of the folder itself, which begin with `-`, nor hidden
    files, nor the scratch files that end with `~`. Most names stay as they are.
    """
    name = name.replace("%", "%25")
    if name[:1] in _FIRST:
        name = f"{_FIRST[name[0]]}{name[1:]}"
    return f"{name[:-1]}%7E" if name.endswith("~") else name


def of_file(file: str) -> str:
    """Undo `as_file`."""
    if "%" not in file:
        return file
    for char, code in (*_FIRST.items(), ("~", "%7E"), ("%", "%25")):
        file = file.replace(code, char)
    return file


def quotable(name: str) -> bool:
    """Whether NAME in quotes means itself in nft's language, where `*` is for whatever follows."""
    return name.isascii() and name.isprintable() and not any(c in name for c in '"\\*')


def in_chain_name(name: str) -> str:
    """Return NAME, whatever it is, as a part of the name of a chain, which cannot be quoted."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "-.") else f"_{c.encode(*_BYTES).hex()}_"
        for c in name
    )


def plain_ifname(name: str) -> bool:
    """Whether NAME can stand in nft's and dnsmasq's languages without quotes."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return name.isascii() and name[:1].isalpha() and (plain.isalnum())
