"""Checks on text for other programs: protection against injection by names and addresses.

Every file and message for dnsmasq, nft, iptables, tc, D-Bus, NetworkManager and systemd-networkd is
checked here before it is passed on: no name or address may add a line, a directive or a pattern.
Values from outside are validated where they are read (config.parse, model.addresses); this is a
second check, on the text made from them.
"""

from __future__ import annotations

from qemu_netwrap.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The directives in the configuration of a network's dnsmasq. None of them includes a file, runs a
# program or writes a file; TFTP, where configured, only serves the files of one folder.
DIRECTIVES = frozenset(
    """
    bind-dynamic dhcp-authoritative dhcp-boot dhcp-ignore dhcp-ignore-clid dhcp-ignore-names
    dhcp-name-match dhcp-option dhcp-range dns-loop-detect domain domain-needed enable-ra
    enable-tftp except-interface host-record interface local no-hosts no-ping no-resolv port
    ra-param resolv-file server strict-order tftp-root tftp-single-port
    """.split()
)
# Characters with a special meaning to dnsmasq (src/option.c, `one_file` and `read_file`).
_SPECIAL = frozenset("\"\\'")
_HINT = "a name or an address has a character that does not belong there; rename it"


def line(text: str) -> str:
    """Return TEXT if it is one line of printable characters. Raises `HostError`."""
    if not text.isprintable():
        raise HostError(f"{text!r} must not reach another program", _HINT)
    return text


def lines(text: str) -> str:
    """Return TEXT if all of its lines are printable. Raises `HostError`."""
    for each in text.split("\n"):
        line(each)
    return text


def joined(each: Iterable[str]) -> str:
    """Return lines as one text. Raises `HostError` if one of them is not a single line."""
    return "".join(f"{line(one)}\n" for one in each)


def dnsmasq(config: str) -> str:
    """Return a configuration of dnsmasq if it consists of `DIRECTIVES` and comments only.

    Otherwise it raises `HostError`.
    """
    for each in lines(config).splitlines():
        if each.startswith("# "):
            continue
        directive, _, value = each.partition("=")
        if directive not in DIRECTIVES or _SPECIAL & set(value) or " " in value:
            raise HostError(f"{each!r} cannot be passed to dnsmasq", _HINT)
    return config


def lease_words(words: Iterable[str]) -> str:
    """Return the fields about one guest as a line of dnsmasq's host files (dhcp-host).

    The last is the guest's name. dnsmasq reads some names as keywords, `ignore` and `infinite`, and
    a number, with or without a unit, as a lease time. A trailing dot makes it a name.
    """
    found = list(words)
    name = found[-1]
    digits = name[:-1] if name[-1:] in ("s", "m", "h", "d", "w") else name
    if name in ("ignore", "infinite") or digits.isdigit():
        found[-1] = f"{name}."
    told = line(",".join(found))
    if told.count(",") != len(found) - 1 or " " in told:
        raise HostError(f"{told!r} cannot be passed to dnsmasq", _HINT)
    return told
