"""Where the milliseconds go: a ladder of commands, each of which does one thing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench import rounds
from bench.clock import Vm
from bench.peers import BRIDGE, CLEAN, US

if TYPE_CHECKING:
    from lab.netns import Host

_PYTHON: Final = str(CLEAN / "python")
_EXIT: Final = "import posix; posix._exit(0)"
_TRUE: Final = "/bin/true"
# It stands for QEMU, which is not what is measured here.
LADDER: Final[dict[str, tuple[str, ...]]] = {
    "a process: /bin/true": (_TRUE,),
    "the interpreter: `python3 -I -S`": (_PYTHON, "-I", "-S", "-c", _EXIT),
    "`site`, and the venv's .pth files": (_PYTHON, "-c", _EXIT),
    "what every launch loads, and exec": (*US, _TRUE),
    "the grammar of QEMU's network options": (*US, _TRUE, "-nic", "user"),
    "the modules that provision": (
        _PYTHON,
        "-c",
        f"import qemu_netwrap.runtime.provision; {_EXIT}",
    ),
    "planning, keeper, a tap on a bridge": (*US, _TRUE, "-nic", f"bridge,br={BRIDGE}"),
    "joining nat: locks, a MAC, a look at the uplink": (*US, _TRUE, "-nic", "nat"),
}
MADE: Final = "making nat: bridge, address, rules, dnsmasq"


def measure(host: Host, count: int) -> dict[str, list[float]]:
    """Return how long each command of the ladder takes to its end, in milliseconds, by round."""
    found: dict[str, list[float]] = {name: [] for name in (*LADDER, MADE)}
    with rounds.nat_up(host):
        for _ in range(count):
            for name, argv in LADDER.items():
                found[name].append(_took(host, argv))
    for _ in range(count):
        found[MADE].append(_took(host, (*US, _TRUE, "-nic", "nat")))
    return found


def _took(host: Host, argv: tuple[str, ...]) -> float:
    """Run a command to its end, and its teardown."""
    before = rounds.runs(host)
    took = Vm(host, argv).over()
    rounds.gone(host, before)
    return took
