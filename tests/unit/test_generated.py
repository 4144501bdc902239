"""Command lines by the thousand, out of everything that QEMU's words can be made of."""

from __future__ import annotations

import random
from typing import Final

from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.model.names import ifname_fault
from qemu_netwrap.model.network import Config
from qemu_netwrap.model.run import TapDescriptors
from qemu_netwrap.qemu import command_line as words
from qemu_netwrap.qemu import readconfig
from qemu_netwrap.qemu.known_options import WITH_ARGUMENT, WITHOUT_ARGUMENT
from qemu_netwrap.qemu.netdev_schema import TYPES, keys_of
from qemu_netwrap.qemu.network_options import interpret
from qemu_netwrap.runtime import plan

COUNT: Final = 1500
KINDS: Final = (*sorted(TYPES), "nat", "host-only", "nat", "tap", "tap", "", "nosuch", "tap,")
VALUES: Final = (
    *("", "on", "off", "no", "1", "0", "2", "-1", "0x2", "x", "nat", "a,,b", "\udcff", "é", "vm%d"),
    *("52:54:00:00:00:01", "zz", "a" * 20, "n0", "n1", "tcp::0-:22", "{", '"', "/x", "help"),
)
MORE_KEYS: Final = ("id", "id", "id", "type", "mac", "macaddr", "model", "network", "nosuch", "")
FILES: Final = (
    '[netdev "n0"]\n type = "nat"\n',
    '[netdev "n0"]\n type = "tap"\n queues = "2"\n[device]\n driver = "e1000"\n netdev = "n0"\n',
    "[nic]\n",
    '[net]\n type = "host-only"\n',
    "nonsense",
    "",
)


def net_option(dice: random.Random) -> str:
    """An argument of -netdev, -nic or -net."""
    kind = dice.choice(KINDS)
    keys = [*keys_of(kind), *keys_of("tap"), *MORE_KEYS]
    pairs = [(dice.choice(keys), dice.choice(VALUES)) for _ in range(dice.randrange(5))]
    if dice.random() < 0.7:
        pairs.append(("id", dice.choice(["n0", "n1", "n2"])))
    if dice.random() < 0.2:
        inside = "".join(f',"{key}":"{value}"' for key, value in pairs)
        return f'{{"type":"{kind}"{inside}}}'
    listed = [f"{key}={value}" if dice.random() < 0.9 else key for key, value in pairs]
    return ",".join([dice.choice([kind, f"type={kind}"]), *listed])


def sane(dice: random.Random) -> list[str]:
    """An option that QEMU, or we, would take."""
    number = dice.randrange(100)
    return dice.choice(
        [
            ["-nic", dice.choice(["nat", "user", "tap", "host-only,model=virtio", "none"])],
            ["--nic", f"tap,id=i{number},mac=52:54:00:00:00:{number:02}"],
            ["-netdev", f"nat,id=a{number},queues={1 + number % 4},ifname=vm{number}"],
            ["-netdev", f'{{"type":"tap","id":"b{number}","network":"nat"}}'],
            ["-netdev", f"user,id=c{number}", "-device", f"e1000,netdev=c{number}"],
            ["-net", dice.choice(["nic", "nat", "user", "nic,model=e1000"])],
            ["-readconfig", dice.choice("25")],
            ["-name", f"-nic{number}"],
            ["-S"],
            ["disk.img"],
        ]
    )


def device(dice: random.Random) -> str:
    """An argument of -device."""
    rest = dice.choice(["", ",id=d0", ",mac=52:54:00:00:00:02", ",mac=zz", ",bus=pci.0,addr=0x5"])
    return f"{dice.choice(['e1000', 'virtio-net-pci', ''])},netdev=n{dice.randrange(3)}{rest}"


def command_line(dice: random.Random) -> list[str]:
    """Words, most of which QEMU knows."""
    argv = ["qemu-system-x86_64"]
    if dice.random() < 0.4:
        return [*argv, *(word for _ in range(dice.randrange(1, 5)) for word in sane(dice))]
    for _ in range(dice.randrange(1, 12)):
        dash = dice.choice(["-", "--"])
        number = dice.random()
        if number < 0.5:
            argv += [dash + dice.choice(["netdev", "nic", "net"]), net_option(dice)]
        elif number < 0.65:
            argv += [f"{dash}device", device(dice)]
        elif number < 0.72:
            group = dice.choice(["netdev", "nic", "net", "device", "nosuch"])
            key = dice.choice(["type", "queues", "mac", "network", "ifname", "netdev", "nosuch"])
            argv += [
                f"{dash}set",
                f"{group}.{dice.choice(['n0', 'd0'])}.{key}={dice.choice(VALUES)}",
            ]
        elif number < 0.78:
            argv += [f"{dash}readconfig", str(dice.randrange(len(FILES)))]
        elif number < 0.88:
            argv += [dash + dice.choice(sorted(WITH_ARGUMENT)), dice.choice(VALUES)]
        elif number < 0.95:
            argv.append(dash + dice.choice(sorted(WITHOUT_ARGUMENT - words.PRINTS)))
        else:
            argv.append(dice.choice(["disk.img", "", "-", "--", "-nosuch", "-netdev=x"]))
    return argv


def planned(argv: list[str]) -> plan.Plan | None:
    """The plan, made as a launch makes it."""
    line = words.parse(argv)
    files = {
        option.at: readconfig.parse(option.value or "", FILES[int(option.value or 0)])
        for option in line.named("readconfig")
        if (option.value or "0").isascii() and (option.value or "0").isdigit()
    }
    wanted = interpret(line, files)
    return plan.make(wanted, Config(), plan.Facts("4242", "machine")) if wanted else None


def test_any_command_line_is_planned_or_refused_by_an_error_of_ours() -> None:
    dice = random.Random(3)  # noqa: S311 - the same command lines each time
    outcomes = {"plan": 0, "nothing": 0}
    told = []
    for _ in range(COUNT):
        argv = command_line(dice)
        try:
            made = planned(argv)
        except NetwrapError as error:
            told.append((error.message, error.hint))
            continue
        outcomes["plan" if made and made.nics else "nothing"] += 1
        if made is not None:
            check(made)
    assert all(message and hint for message, hint in told)
    assert min(len(told), *outcomes.values()) > COUNT / 10, (outcomes, len(told))


def check(made: plan.Plan) -> None:
    """A plan's names are of use, and what QEMU gets can be written."""
    taps = [p.nic.tap for p in made.nics]
    assert len(set(taps)) == len(taps)
    assert not [tap for tap in taps if ifname_fault(tap)]
    grants = {}
    for nic in (p.nic for p in made.nics):
        fds = tuple(map(str, range(64, 64 + nic.queues)))
        macs = tuple(mac or nic.own_mac(n) for n, mac in enumerate(nic.macs))
        grants[nic.tap] = TapDescriptors(fds, fds if nic.vhost else (), macs)
    rewritten = made.rewritten(grants)
    assert rewritten.words(dict.fromkeys(rewritten.files, "/x"))
