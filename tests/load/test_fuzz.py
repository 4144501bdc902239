"""Whatever is typed, configured or kept: it is understood, or refused by an error of ours.

A few of each kind with the other tests, tens of thousands in the soak.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from lab.chance import SOAK
from lab.tally import DONE
from qemu_netwrap import printable
from qemu_netwrap.config import parse
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.model import mac, numbers, pci, plain_text
from qemu_netwrap.model.host import NetworkFacts
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.qemu import hostfwd, readconfig
from qemu_netwrap.resources.base import Unreadable, from_line
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.links import Bridge
from unit import test_generated as generated

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

COUNT: Final = 12_000 if SOAK else 150
ODD: Final = (
    *("", " ", "\n", "\0", "\x1b[2J", "\u202e", "\u2028", "\udcff", "\ud800", "é", "٣", "²", "%"),
    *("9" * 5000, "0x" + "f" * 5000, "0" * 5000, "-1", "1e400", "NaN", "Infinity", "0b1", "1_0"),
    *(
        ",",
        ",,",
        "=",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "\\",
        "\\u0000",
        "\\ud800",
        "#",
        "/",
        ".",
        "..",
    ),
    *(
        "-kept",
        "vm~",
        "!x",
        "*",
        ";",
        "all",
        "default",
        "fe80::1%lo\n",
        "::",
        "1.2.3.4",
        "on",
        "no",
    ),
    *("52:54:00:00:00:01", "0x52:54::1:", "tcp::1-:2", "tcp:[::]:2222-[fd00::5]:22", "10.0.0.0/24"),
    *("tap", "nat", "host-only", "bridge", "sriov", "user", "foo", "network", "hostfwd", "ifname"),
)
KEYS: Final = ("id", "type", "network", "hostfwd", "mac", "ifname", "br", "uplink", "queues", "pf")


def odd(dice: random.Random) -> str:
    """A text of odd pieces."""
    return "".join(dice.choice(ODD) for _ in range(dice.choice((1, 1, 1, 2, 3))))


def argument(dice: random.Random) -> str:
    """An argument of a network option, as a list or as JSON."""
    pairs = [(dice.choice(KEYS), odd(dice)) for _ in range(dice.randrange(4))]
    kind = dice.choice(("nat", "tap", "host-only", "bridge", "foo", "user", "sriov", odd(dice)))
    if dice.random() < 0.3:
        inner = dict([("type", kind), *pairs, ("hostfwd", [{"str": odd(dice)}])])
        text = json.dumps(inner, ensure_ascii=dice.random() < 0.5)
        return text.replace('"', "'") if dice.random() < 0.2 else text
    return ",".join([kind, *(f"{key}={value}" for key, value in pairs)])


def typed(dice: random.Random) -> None:
    """Plan a command line, of a program that may not be QEMU."""
    argv = [dice.choice(("qemu-system-x86_64", "prog"))]
    for _ in range(dice.randrange(1, 4)):
        argv += [dice.choice(("-nic", "-netdev", "-net", "-device", "-name", "-m")), argument(dice)]
    # Neither can stand in an argument; both can in what JSON spells out.
    made = generated.planned([word.replace("\0", "").replace("\ud800", "") for word in argv])
    if made is not None:
        generated.check(made)


def configured(dice: random.Random) -> None:
    """Read a configuration, and make what it says."""
    mode = dice.choice(("'nat'", "'host-only'", odd(dice)))
    lines = ["[networks.a]", f"mode = {mode}"]
    for _ in range(dice.randrange(4)):
        key = dice.choice((*parse.keys(), odd(dice)))
        text = json.dumps(odd(dice).replace("\ud800", ""))
        forms = (
            text,
            f"[{text}]",
            f"{{ {text} = {text} }}",
            odd(dice),
            "9" * 5000,
            "0x" + "f" * 5000,
        )
        lines.append(f"{key} = {dice.choice(forms)}")
    for network in parse.parse("\n".join(lines), "c.toml").networks:
        for resource in network_resources(network, NetworkFacts()):
            if isinstance(resource, DnsmasqServer):
                plain_text.dnsmasq(resource.config)


def kept(dice: random.Random) -> None:
    """Read a line of a journal, and a file of QEMU's, that somebody has spoilt."""
    readconfig.parse("x", "".join(odd(dice) for _ in range(8)))
    line = Bridge("br0", "52:54:00:00:00:01").to_line()
    at = dice.randrange(len(line))
    found = from_line(line[:at] + odd(dice) + line[at + dice.randrange(3) :])
    if isinstance(found, Unreadable):
        raise ValueError(found.line)  # noqa: TRY004 - a value is refused, not a type


def read(dice: random.Random) -> None:
    """Read values."""
    text = odd(dice)
    assert printable.line(text).isprintable()
    numbers.fault("x", text, dice.choice(("u16", "u32", "i64", "size", "bool", "str")))
    reader: Callable[[str], object] = dice.choice((hostfwd.parse, mac.parse, pci.parse))
    reader(text)


@pytest.mark.parametrize("kind", [typed, configured, kept, read])
def test_nothing_has_a_traceback(
    kind: Callable[[random.Random], None], chance: random.Random
) -> None:
    ours: tuple[type[Exception], ...] = (NetwrapError,)
    if kind in (kept, read):
        ours = (HostError, ValueError)  # as those functions say of themselves
    # Of values that chance makes hardly one in a hundred is right: there have to be many.
    count = COUNT * 20 if kind in (kept, read) else COUNT
    refused = 0
    for _ in range(count):
        try:
            kind(chance)
        except ours:
            refused += 1
    DONE[f"{kind.__name__} inputs"] += count
    assert 0 < refused < count
