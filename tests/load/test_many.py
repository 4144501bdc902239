"""Many at once: launchers that start together, a bridge with hundreds of VMs, a full bridge."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

import pytest

from lab.chance import SOAK
from lab.netns import Host, wait_for
from lab.tool import IDLE, QEMU, netwrap
from load.fleet import ENDING, Fleet
from qemu_netwrap.linux import files

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from lab.netns import Uplinked

TOGETHER: Final = 50
CROWD: Final = 300
REAL: Final = CROWD if SOAK else 40
_PORTS: Final = 1023  # BR_MAX_PORTS, less port 0: net/bridge/br_private.h


def test_fifty_launchers_at_once_on_a_cold_network(
    uplinked: Uplinked, tmp_path: Path, chance: random.Random
) -> None:
    fleet = Fleet(uplinked.host, tmp_path)
    # Half of them have the same words, and so want the same MAC.
    vms = [
        fleet.start("nat", real=n % 5 == 0, name=f"vm{n}" if n % 2 else "") for n in range(TOGETHER)
    ]
    fleet.wait_up(vms)
    assert fleet.ports("qn-nat") == {tap for vm in vms for tap in vm.taps}
    assert len(fleet.dnsmasqs()) == 1
    look = fleet.look()
    assert len(look.addresses["qn-nat"]) == 1
    names = [chain.split()[0] for chain in look.chains("qn-nat")]
    assert len(names) == len(set(names)) == 4  # prerouting, forward, sources, postrouting
    assert look.rules.count("masquerade") == 2  # IPv4 and IPv6
    assert look.is_forwarding
    assert len(fleet.given_macs()) == TOGETHER
    assert {holder.split()[0] for holder in fleet.given_macs().values()} == {vm.run for vm in vms}
    for vm in chance.sample(vms, len(vms)):
        vm.end(chance.choice(ENDING))
    fleet.wait_gone()


def test_hundreds_of_vms_on_one_bridge(
    uplinked: Uplinked, tmp_path: Path, chance: random.Random
) -> None:
    fleet = Fleet(uplinked.host, tmp_path)
    real = set(chance.sample(range(CROWD), REAL))
    for first in range(0, CROWD, TOGETHER):
        batch = [fleet.start("nat", real=n in real) for n in range(first, first + TOGETHER)]
        fleet.wait_up(batch)
    vms = chance.sample(fleet.vms, CROWD)
    assert fleet.ports("qn-nat") == {tap for vm in vms for tap in vm.taps}
    assert len(fleet.given_macs()) == CROWD
    made, chains = fleet.index("qn-nat"), fleet.look().chains("qn-nat")
    (server,) = fleet.dnsmasqs()
    while len(vms) > 1:
        for vm in vms[TOGETHER:] or vms[1:]:
            vm.end(chance.choice(ENDING))
        vms = vms[:TOGETHER] if len(vms) > TOGETHER else vms[:1]
        living = {tap for vm in vms for tap in vm.taps}
        wait_for(lambda: fleet.runs() == {vm.run for vm in vms}, "the others to be gone", 120)  # noqa: B023
        assert fleet.ports("qn-nat") == living
        assert (fleet.index("qn-nat"), fleet.look().chains("qn-nat")) == (made, chains)
        assert list(fleet.dnsmasqs()) == [server]
        assert fleet.look().is_forwarding
    vms[0].end(signal.SIGKILL)
    fleet.wait_gone()


def test_a_full_bridge_is_a_clear_error(lab: None, tmp_path: Path) -> None:
    # Without the leak detector: on a thousand interfaces a look takes it seconds.
    with Host("full") as host:
        lines = ["link add br0 type bridge"]
        for number in range(_PORTS):
            lines += [f"tuntap add dev t{number} mode tap", f"link set t{number} master br0"]
        host.run("ip", "-batch", "-", input="\n".join(lines))
        before = left(host)
        # The network that was made before goes too.
        done = netwrap(host, "--", QEMU, *IDLE, "-nic", "host-only", "-nic", "bridge,br=br0")
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.splitlines() == [
            "qemu-netwrap: bridge br0 is full: a bridge has 1023 ports at most",
            "  hint: use another network for some of the VMs",
        ]
        wait_for(lambda: left(host) == before, "the host to be as it was")
        # One port less, and there is room for one.
        host.run("ip", "link", "delete", "t7")
        fleet = Fleet(host, tmp_path)
        vm = fleet.start("tap,br=br0")
        fleet.wait_up([vm])
        assert fleet.ports("br0") == {f"t{n}" for n in range(_PORTS) if n != 7} | set(vm.taps)
        vm.end(signal.SIGKILL)
        fleet.wait_gone()


def test_who_only_looks_at_a_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    # Of many that clean up, one would leave out the dead run that another looks at.
    path = str(tmp_path / "lock")
    looking = os.open(path, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_locked` does, for some microseconds
    timer = threading.Timer(0.02, os.close, (looking,))
    timer.start()
    taken = files.open_locked(path, wait=False)
    with pytest.raises(BlockingIOError):
        files.open_locked(path, wait=False)
    assert files.is_locked(path)
    os.close(taken)
    timer.join()


def left(host: Host) -> tuple[list[str], str, list[str], list[str]]:
    """Return a machine's interfaces, nft rules, processes and files of ours."""
    links = host.run("ip", "-o", "link").stdout.splitlines()
    names = [" ".join(line.split()[:2]) for line in links]
    below = host.run("find", "/run").stdout.splitlines()
    return names, host.run("nft", "list", "ruleset").stdout, [*host.processes().values()], below
