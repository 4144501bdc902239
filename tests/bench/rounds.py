"""Rounds: every launcher once, in an order that changes, so that all share the machine's moods."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.clock import BARE, Vm
from bench.peers import US

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.peers import Start
    from lab.netns import Host
    from lab.user import User


class Figures(NamedTuple):
    """The milliseconds of one launcher, a value a round."""

    up: list[float]  # from exec to QEMU's answer
    quit: list[float]  # from the command to end to the end
    gone: list[float]  # from there until nothing of ours is left


def measure(host: Host, starts: Mapping[str, Start], rounds: int) -> dict[str, Figures]:
    """Start every launcher on HOST once a round; the first round is to warm up."""
    found = {name: Figures([], [], []) for name in starts}
    chance = random.Random(1)  # noqa: S311  for an order
    for number in range(rounds + 1):
        for name in chance.sample([*starts], len(starts)):
            before = runs(host)
            vm = starts[name](host)
            took = (vm.up(), vm.quit(), gone(host, before))
            if number:
                for values, value in zip(found[name], took, strict=True):
                    values.append(value)
    return found


@contextlib.contextmanager
def nat_up(host: Host, user: User | None = None) -> Iterator[None]:
    """Have a VM running that keeps the nat network up, root's or USER's."""
    before, env = runs(host), None if user is None else user.env
    vm = Vm(host, [*US, *BARE, "-netdev", "nat,id=n0"], user=user, env=env)
    vm.up()
    yield
    vm.quit()
    gone(host, before)


def runs(host: Host) -> set[str]:
    """Return the runs that there is a trace of on HOST, root's and users', and users' realms."""
    folder = Path(f"/proc/{host.pid}/root/run")
    ours = ("qemu-netwrap/*/runs/*", *(f"user/*/qemu-netwrap/{n}" for n in ("*/runs/*", "*.realm")))
    try:
        return {str(found) for pattern in ours for found in folder.glob(pattern)}
    except FileNotFoundError:  # it goes just now
        return runs(host)


def gone(host: Host, stay: set[str]) -> float:
    """Wait until no run but those of STAY is left; return the milliseconds."""
    begun = time.monotonic_ns()
    while runs(host) - stay:
        time.sleep(0.0005)
    return (time.monotonic_ns() - begun) / 1e6
