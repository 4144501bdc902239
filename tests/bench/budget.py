"""What the budget has figures for beyond a single launch."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import rounds
from bench.clock import BARE, Vm
from bench.peers import BRIDGE, US, by_hand, ours
from fidelity.running import open_tap
from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host

INTERFACES: Final = 3000
ROUTES: Final = 5000
RULES: Final = 1000
TOGETHER: Final = 100
KEPT: Final = 50
_NAT: Final = ("-netdev", "nat,id=n0")
_SWITCHES: Final = re.compile(r"voluntary_ctxt_switches:\s*(\d+)")
_PSS: Final = re.compile(r"^Pss:\s+(\d+)", re.MULTILINE)


def crowd(host: Host, first: int = 0, last: int = INTERFACES) -> None:
    """Give HOST interfaces of others, number FIRST to LAST."""
    lines = (
        f"link add many{n} type veth peer name peer{n}\n" for n in range(first // 2, last // 2)
    )
    host.run("ip", "-batch", "-", input="".join(lines))


def fill(host: Host) -> None:
    """Give HOST routes and rules of others. Half of the routes are where our subnets may be."""
    nets = ("10.{}", "11.{}")
    lines = (
        f"route add {nets[n % 2].format(128 + (n >> 9))}.{n >> 1 & 255}.0/24 via 203.0.113.1\n"
        for n in range(ROUTES)
    )
    host.run("ip", "-batch", "-", input="".join(lines))
    rules = "\n".join(f"tcp dport {n + 1} accept" for n in range(RULES))
    host.run("nft", "-f", "-", input=f"table inet others {{\nchain many {{\n{rules}\n}}\n}}\n")


def crowded(small: Host, large: Host, count: int) -> dict[str, list[float]]:
    """Return what the same launch takes longer on LARGE than on SMALL, a value a round."""
    starts = {
        "bridge": ours("-netdev", f"bridge,id=n0,br={BRIDGE}"),
        "nat that is up": ours(*_NAT),
        "nat made": ours(*_NAT),
    }
    found: dict[str, list[float]] = {name: [] for name in starts}
    for name, start in starts.items():
        with contextlib.ExitStack() as stack:
            for host in (small, large) if "up" in name else ():
                stack.enter_context(rounds.nat_up(host))
            # What is to be told is 2 ms of 60: it takes more rounds than what adds tens of them.
            for number in range(count if "made" in name else count * 3):
                order = (small, large) if number % 2 else (large, small)
                took = {host: rounds.measure(host, {"": start}, 1)[""].up[0] for host in order}
                found[name].append(took[large] - took[small])
    return found


def together(host: Host, count: int) -> list[float]:
    """Return how many times as long as bare QEMUs the same number of ours takes, together."""
    found = []
    for _ in range(count):
        fds = [open_tap(host, f"hand{n}") for n in range(TOGETHER)]
        lines = "".join(f"link set hand{n} master {BRIDGE} up\n" for n in range(TOGETHER))
        host.run("ip", "-batch", "-", input=lines)
        alone = _all_up(host, [((*BARE, "-netdev", f"tap,id=n0,fd={fd}"), fd) for fd in fds])
        for fd in fds:
            os.close(fd)
        with rounds.nat_up(host):
            words = [(*US, *BARE, "-name", f"vm{n}", *_NAT) for n in range(TOGETHER)]
            found.append(_all_up(host, [(each, -1) for each in words]) / alone)
    return found


def _all_up(host: Host, launches: list[tuple[tuple[str, ...], int]]) -> float:
    """Start all, then end them; return the milliseconds until the last has answered."""
    begun = time.monotonic_ns()
    vms = [Vm(host, argv, fds=[fd] if fd >= 0 else []) for argv, fd in launches]
    for vm in vms:
        vm.up()
    took = (time.monotonic_ns() - begun) / 1e6
    for vm in vms:
        vm.process.kill()
    for vm in vms:
        vm.kill()
    return took


def keepers(host: Host) -> tuple[list[float], list[float]]:
    """Have many VMs running; return each keeper's PSS in MB, and its wake-ups in two seconds."""
    vms = [Vm(host, [*US, *BARE, *_NAT]) for _ in range(KEPT)]
    for vm in vms:
        vm.up()
    wait_for(lambda: len(_waiting(host)) == KEPT, "all keepers to sleep", 60)
    pids = _waiting(host)
    before = [_told(pid, "status", _SWITCHES) for pid in pids]
    time.sleep(2)
    woken = [_told(pid, "status", _SWITCHES) - n for pid, n in zip(pids, before, strict=True)]
    memory = [_told(pid, "smaps_rollup", _PSS) / 1024 for pid in pids]
    for vm in vms:
        vm.kill()
    rounds.gone(host, set())
    return memory, woken


def _waiting(host: Host) -> list[int]:
    """Return the keepers that are asleep."""
    pids = (pid for pid, words in host.processes().items() if "/waiter.py" in words)
    return [p for p in pids if "flock" in Path(f"/proc/{p}/stack").read_text("utf-8")]


def _told(pid: int, file: str, what: re.Pattern[str]) -> float:
    """Return a number that /proc tells of a process."""
    found = what.search(Path(f"/proc/{pid}/{file}").read_text("utf-8"))
    assert found is not None
    return float(found[1])


def growth(host: Host, large: Host, count: int) -> dict[str, list[tuple[int, float]]]:
    """Return what a launch adds to bare QEMU, by interfaces on the machine and by running VMs."""
    found: dict[str, list[tuple[int, float]]] = {"interfaces": [], "VMs": []}
    there = 0
    with rounds.nat_up(large):
        for goal in (10, 100, 300, 1000, INTERFACES):
            crowd(large, there, goal)
            there = goal
            found["interfaces"].append((goal, _added(large, count)))
    vms: list[Vm] = []
    for goal in (1, 10, 30, 100, 200, 300):
        while len(vms) < goal:
            numbers = range(len(vms), min(len(vms) + 20, goal))
            batch = [Vm(host, [*US, *BARE, "-name", f"vm{n}", *_NAT]) for n in numbers]
            for vm in batch:
                vm.up()
            vms += batch
        found["VMs"].append((goal, _added(host, count)))
    for vm in vms:
        vm.process.kill()
    for vm in vms:
        vm.kill()
    rounds.gone(host, set())
    return found


def _added(host: Host, count: int) -> float:
    """Return the median of what a launch on a nat network that is up adds to bare QEMU."""
    with_nat = {"us": ours(*_NAT), "bare": by_hand}
    took = rounds.measure(host, with_nat, count)
    return statistics.median(a - b for a, b in zip(took["us"].up, took["bare"].up, strict=True))
