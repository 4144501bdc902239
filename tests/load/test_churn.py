"""Starts and exits in random order on three networks, and what each living VM has meanwhile.

Every network goes cold again and again while the others live on. Launchers are killed while they
start, keepers die, `gc` and `ps` run beside all of it. A network that is removed too early, or
made twice, is seen by what the kernel gives anew: an ifindex, a chain's handle, a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from lab.chance import SOAK
from lab.netns import wait_for
from lab.tally import DONE
from lab.tool import COMMAND
from load.fleet import BRIDGES, ENDING, PATIENCE, Fleet, started

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from lab.netns import Uplinked
    from load.fleet import Look, Vm

_SECONDS: Final = float(os.environ.get("LOAD_SECONDS") or (600 if SOAK else 40))
_NETS: Final = ("nat", "host-only", "tap,br=br-load")
_NAMED: Final = ("nat", "host-only")  # what QEMU_NETWRAP_NETWORK may name
_SERVED: Final = ("qn-nat", "qn-host-only")
_TARGETS: Final = (0, 0, 1, 1, 2, 4, 8)  # members of a network, for a while
_LOOK_EVERY: Final = 0.25
_GONE_WITHIN: Final = 180.0


@dataclass
class Witness:
    """What a VM found when it came up, by bridge; it must stay so until its end."""

    index: dict[str, int] = field(default_factory=dict)
    servers: dict[str, tuple[int, str]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)


class Churn:
    """Chance at work on a fleet."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        """Begin with nobody."""
        self.fleet = fleet
        self.chance = chance
        self.starting: dict[Vm, float] = {}  # and when it is killed before it is up
        self.living: dict[Vm, Witness] = {}
        self.ending: set[Vm] = set()
        self.doomed: set[Vm] = set()  # somebody was killed before it was up: it may fail
        self.orphans: set[Vm] = set()  # their keeper was killed
        self.needs_gc = False
        self.target = dict.fromkeys(_NETS, 0)
        self.cold_since: dict[str, float] = {}
        self.busy: list[subprocess.Popen[str]] = []
        self._began = time.monotonic()
        self._phase_ends = 0.0
        self._rough = False
        self._kills_keepers = False
        self._next_look = 0.0

    def go(self, seconds: float, *, rough: bool) -> None:
        """Let chance work for so long, then end all.

        Unless it is ROUGH, keepers live, and `gc` does not hide what they do not do.
        """
        self._rough = rough
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if time.monotonic() > self._phase_ends:
                self._begin_phase()
            self._step()
            self._act()
        self.target = dict.fromkeys(_NETS, 0)
        until = time.monotonic() + PATIENCE
        while self.starting or self.living or self.ending or self.busy:
            assert time.monotonic() < until, "the fleet does not end"
            self._step()
            for vm in list(self.living):
                self._end(vm)
        if not rough:
            bridges = BRIDGES.values()
            wait_for(
                lambda: not any(map(self.fleet.is_there, bridges)),
                "the networks to go by themselves",
                _GONE_WITHIN,
            )
        # Also for a launcher that was killed before it had a keeper: the run's folder is left.
        self.fleet.gc()
        self.fleet.wait_gone(_GONE_WITHIN)

    def _begin_phase(self) -> None:
        """Choose how many VMs each network is to have, and for how long."""
        self.target = {net: self.chance.choice(_TARGETS) for net in _NETS}
        self._note(f"targets {self.target}")
        self._phase_ends = time.monotonic() + self.chance.uniform(0.2, 2.5)
        self._kills_keepers = self._rough and self.chance.random() < 0.5
        DONE["phases"] += 1

    def _note(self, what: str) -> None:
        """Note what happens: shown where the test fails."""
        print(f"{time.monotonic() - self._began:9.3f} {what}")  # noqa: T201

    def _step(self) -> None:
        """See who has come and gone, and that each of the living has its network."""
        self._reap()
        self._welcome()
        self._reap_commands()
        for vm, witness in self.living.items():
            self._check(vm, witness)
        if time.monotonic() > self._next_look:
            self._check_look(self.fleet.look())
            self._next_look = time.monotonic() + _LOOK_EVERY
        self._check_cold()
        time.sleep(0.005)

    def _reap(self) -> None:
        """Take note of ends."""
        for vm in [vm for vm in self.ending if vm.is_over()]:
            self.ending.discard(vm)
            self._note(f"{vm.pid} is gone")
            self.needs_gc |= vm in self.orphans
        for vm in [vm for vm in self.starting if vm.is_over()]:
            del self.starting[vm]
            assert vm in self.doomed, f"{vm.pid} failed: {vm.told}"
            assert vm.process.returncode == 125, vm.told
            assert "the keeper died before the network was up" in vm.told, vm.told
            self._note(f"{vm.pid} failed, as it should")
            DONE["launches without their keeper"] += 1
        for vm in self.living:
            assert not vm.is_over(), f"{vm.pid} died by itself: {vm.told}"

    def _welcome(self) -> None:
        """Take note of who is up, and of the network that it finds."""
        now = time.monotonic()
        for vm, dies_at in list(self.starting.items()):
            if now > dies_at:
                self.starting[vm] = float("inf")
                self._kill_early(vm)
            elif vm.is_up():
                del self.starting[vm]
                self.living[vm] = self._witness(vm)
                self._note(f"{vm.pid} is up: {vm.taps}, {self.living[vm]}")

    def _kill_early(self, vm: Vm) -> None:
        """Kill the launcher, the keeper or both before the VM is up, or just when it is."""
        launcher, keeper = self.chance.choice(((True, False), (False, True), (True, True)))
        if keeper and self._rough:
            self._kill_keeper(vm)
            self.doomed.add(vm)
        if launcher:
            del self.starting[vm]
            self._end(vm, signal.SIGKILL)
            DONE["launchers killed early"] += 1

    def _witness(self, vm: Vm) -> Witness:
        """Return what a VM finds."""
        witness = Witness()
        for bridge in vm.bridges:
            witness.index[bridge] = self.fleet.index(bridge)
            if bridge in _SERVED:
                pid = self.fleet.server(bridge)
                witness.servers[bridge] = (pid, started(pid))
        return witness

    def _check(self, vm: Vm, witness: Witness) -> None:
        """See that a living VM has its network: the one it came up with."""
        for tap in vm.taps:
            assert self.fleet.master(tap) in vm.bridges, f"{tap} is no port"
        for bridge, index in witness.index.items():
            assert index, f"{bridge} was not there for {vm.taps}"
            assert self.fleet.index(bridge) == index, f"{bridge} of {vm.taps} is another one"
        for bridge, (pid, since) in witness.servers.items():
            assert since, f"{bridge} had no dnsmasq for {vm.taps}"
            assert started(pid) == since, f"the dnsmasq of {bridge} is gone"
        DONE["checks of a living VM"] += 1

    def _check_look(self, look: Look) -> None:
        """See that each living VM has addresses, rules and forwarding, the same as ever."""
        for vm, witness in self.living.items():
            for bridge in vm.bridges:
                if bridge not in _SERVED:
                    continue
                chains, addresses = look.chains(bridge), look.addresses.get(bridge, [])
                assert chains, f"{bridge} of {vm.taps} has no rules"
                assert len(addresses) == 1, f"{bridge} of {vm.taps} has {addresses}"
                assert witness.chains.setdefault(bridge, chains) == chains
                assert witness.addresses.setdefault(bridge, addresses) == addresses
                assert bridge != "qn-nat" or look.is_forwarding, f"{vm.taps} is cut off"

    def _check_cold(self) -> None:
        """See that a network that nobody uses any more goes."""
        used = {bridge for vm in self._all() for bridge in vm.bridges}
        for net in _NETS:
            bridge = BRIDGES[net]
            if bridge in used:
                self.cold_since.pop(net, None)
            elif not self.fleet.is_there(bridge):
                if self.cold_since.pop(net, None) is not None:
                    self._note(f"{bridge} has gone")
                    DONE["times a network went"] += 1
            elif net not in self.cold_since:
                self.cold_since[net] = time.monotonic()
            elif time.monotonic() - self.cold_since[net] > _GONE_WITHIN:
                pytest.fail(f"{bridge} is there still: its last user has gone")

    def _act(self) -> None:
        """Do what chance wants."""
        for net in _NETS:
            members = [vm for vm in self._present() if BRIDGES[net] in vm.bridges]
            surplus = len(members) - self.target[net]
            if surplus < 0 and net not in self.cold_since and self.chance.random() < 0.3:
                self._start(net)
            elif surplus > 0 and self.chance.random() < 0.3:
                self._end_one(members)
            elif members and not surplus and self.chance.random() < 0.05:
                # One goes as another comes: with a single member, the network's very edge.
                first, then = self.chance.sample((True, False), 2)
                for is_start in (first, then):
                    if is_start:
                        self._start(net)
                    else:
                        self._end_one(members)
        if self._kills_keepers and self.living and self.chance.random() < 0.05:
            self._kill_keeper(self.chance.choice(list(self.living)))
        if len(self.busy) < 2 and self.chance.random() < 0.02:
            self._command(self.chance.choice(("gc", "ps")) if self._rough else "ps")
        if self.needs_gc and self.cold_since and not self.busy:
            self._command("gc")
            self.needs_gc = False

    def _start(self, net: str) -> None:
        """Start a VM on a network, sometimes on others as well, or a QEMU with our scripts."""
        if net in _NAMED and self.chance.random() < 0.15:
            vm = self.fleet.hook(net, downscript=self.chance.random() < 0.5)
            self._expect(vm, [net])
            return
        others = [other for other in _NETS if other != net and self.target[other]]
        nets = [net, *(other for other in others if self.chance.random() < 0.15)]
        self.chance.shuffle(nets)
        # The name decides which MACs it wants; by the other its keeper is found.
        words = ("-uuid", str(uuid.UUID(int=self.chance.getrandbits(128))))
        name = self.chance.choice(("twin", "web"))
        vm = self.fleet.start(*nets, real=self.chance.random() < 0.1, name=name, words=words)
        self._expect(vm, nets)

    def _expect(self, vm: Vm, nets: list[str]) -> None:
        """Take note of a start; some will be killed before they are up."""
        is_killed = self.chance.random() < 0.2
        self._note(f"{vm.pid} starts on {nets}")
        late = self.chance.uniform(0, 0.2)
        self.starting[vm] = time.monotonic() + late if is_killed else float("inf")

    def _end_one(self, members: list[Vm]) -> None:
        """End one of these that is up."""
        found = [vm for vm in members if vm in self.living]
        if found:
            self._end(self.chance.choice(found))

    def _end(self, vm: Vm, number: int = 0) -> None:
        """End a VM, by any signal if none is given."""
        self.living.pop(vm, None)
        self.ending.add(vm)
        number = number or self.chance.choice(ENDING)
        self._note(f"{vm.pid} gets signal {number}")
        vm.end(number)

    def _kill_keeper(self, vm: Vm) -> None:
        """Kill a run's keeper."""
        for pid in self.fleet.keepers(vm):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.orphans.add(vm)
            self._note(f"the keeper of {vm.pid} is killed: {pid}")
            DONE["keepers killed"] += 1

    def _command(self, word: str) -> None:
        """Run one of our commands beside all that."""
        child = self.fleet.host.popen(
            *(COMMAND, word), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.busy.append(child)
        self._note(word)
        DONE[f"{word} meanwhile"] += 1

    def _reap_commands(self) -> None:
        """See that commands end well."""
        for child in [child for child in self.busy if child.poll() is not None]:
            self.busy.remove(child)
            self._note(f"{child.args!r} is done")
            assert child.stderr is not None
            with child.stderr as errors:
                assert child.returncode == 0, f"{child.args!r}: {errors.read()}"

    def _present(self) -> list[Vm]:
        """Return who is up or will be."""
        return [*self.starting, *self.living]

    def _all(self) -> list[Vm]:
        """Return everybody who is not gone."""
        return [*self._present(), *self.ending]


def test_starts_and_exits_in_random_order(
    uplinked: Uplinked, tmp_path: Path, chance: random.Random
) -> None:
    churn = Churn(Fleet(uplinked.host, tmp_path), chance)
    churn.go(_SECONDS / 2, rough=False)
    churn.go(_SECONDS / 2, rough=True)
