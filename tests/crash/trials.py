"""Trials: a run in which somebody is killed, and whether the machine is afterwards as it was.

What is sampled is lab.chance's; what was tried is counted by lab.tally.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from crash import injected
from crash.injected import DNSMASQ, KEEPER, LAUNCHER, MIDDLE, QEMU, SELF, WAITER
from lab import neighbours
from lab.leaks import snapshot, wait_same
from lab.netns import Host, wait_for
from lab.tool import IDLE, netwrap
from lab.tool import QEMU as REAL_QEMU
from lab.user import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODES: Final = {
    "nat": ("-nic", "nat"),
    "hostfwd": ("-nic", "nat,hostfwd=tcp::2222-:22"),
    "host-only": ("-nic", "host-only"),
    "bridge new": ("-nic", "tap,br=br-new"),
    "bridge existing": ("-nic", "tap,br=br0"),
    "uplink": ("-nic", "tap,network=lan"),
    "neighbours": ("-nic", "nat"),
    "user": ("-nic", "nat,hostfwd=tcp::2222-:22"),
    "user, no way out": ("-nic", "nat,hostfwd=tcp::2222-:22"),
}
BRIDGES: Final = {
    "nat": "qn-nat",
    "hostfwd": "qn-nat",
    "host-only": "qn-host-only",
    "bridge new": "br-new",
    "bridge existing": "br0",
    "uplink": "br-lan",
    "neighbours": "qn-nat",
    "user": "qn-nat",
    "user, no way out": "qn-nat",
}
# What it adds is the keeper's alone; of cut lines nat tells.
ADDS_TO_NAT: Final = frozenset({"neighbours"})
USERS: Final = frozenset({"user", "user, no way out"})  # an ordinary user's
SERVED: Final = frozenset({"nat", "hostfwd", "host-only", "neighbours", *USERS})  # by dnsmasq
# IPv6 comes when slirp4netns advertises itself: earlier or later than in the run that was counted.
_USERS_CONFIG: Final = '[networks.nat]\nmode = "nat"\nipv6 = false\n'
_NO_WAY_OUT: Final = """
for each in slirp4netns pasta; do mount --bind /dev/null "/usr/bin/$each"; done
"""
_CONFIG: Final = """
[networks.lan]
mode = "bridge"
bridge = "br-lan"
uplink = "eth0"
stp = true
"""
_STAND_IN: Final = "#!/bin/sh\nexec sleep infinity\n"
_DOCKER: Final = "iptables-nft"
_SHOWN: Final = Path("/mnt")  # where a user, whose /tmp is another one, has the trials' folders
_CLOSED: Final = """
table inet theirs {
    chain passing { type filter hook forward priority 0; policy drop; }
}
"""
_HALF: Final = "half of "
_PATIENCE: Final = 120.0
_SETUP: Final = """
for each in eth0 port0; do ip link add "$each" type veth peer name "far-$each"; done
ip link add br0 type bridge stp_state 0
ip link set port0 master br0
for each in far-eth0 far-port0 eth0 port0 br0; do
    echo 0 >"/proc/sys/net/ipv6/conf/$each/accept_dad"
    ip link set "$each" up
done
ip address add 203.0.113.2/24 dev eth0
ip route add default via 203.0.113.1 dev eth0
ip address add 2001:db8:113::2/64 dev eth0
"""
# Nobody is there to answer for the gateway.
_UPLINK_SETUP: Final = """
ip neighbour add 203.0.113.1 lladdr 02:00:00:00:00:01 nud permanent dev eth0
"""


@dataclass(frozen=True)
class Case:
    """What is killed and when: before event AT of ROLE; AFTER so many more, who cleans up too."""

    role: str = ""
    at: int = 0
    victims: tuple[str, ...] = ()
    after: int = 0
    event: str = ""

    @property
    def who(self) -> str:
        """The victims as the table names them."""
        parent, _, child = self.role.partition("-")
        own = {MIDDLE: KEEPER, WAITER: KEEPER}.get(parent, parent)
        names = {SELF: f"a child of the {own}" if child else own}
        who = " + ".join(names.get(victim, victim) for victim in self.victims)
        return f"{who}, then the clean-up" if self.after else who

    @property
    def is_half(self) -> bool:
        """Whether a line is cut."""
        return self.event.startswith(_HALF)


@dataclass(frozen=True)
class Event:
    """An event of a run that nobody disturbed."""

    role: str
    number: int
    name: str
    served: bool  # dnsmasq lived

    @property
    def is_half(self) -> bool:
        """Whether a line is cut here: only who writes it can die of that."""
        return self.name.startswith(_HALF)


class Subject:
    """A simulated machine with an uplink, an old bridge, and the injector's server in it."""

    def __init__(self, mode: str, folder: Path) -> None:
        """Make the machine; trials are kept below FOLDER."""
        self.mode = mode
        self._folder = folder
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "guest"
        program.write_text(_STAND_IN, "utf-8")
        program.chmod(0o755)
        self._begin()

    def __enter__(self) -> Self:
        """Return the subject itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the machine."""
        self.host.close()

    def _begin(self) -> None:
        """Make the machine, and look at it."""
        self.host = Host("crash")
        self.host.run("sh", "-euc", _SETUP)
        if self.mode == "neighbours":
            neighbours.docker(self.host, _DOCKER)
            self.host.run("nft", "-f", "-", input=_CLOSED)
        if self.mode == "uplink":
            self.host.run("sh", "-euc", _UPLINK_SETUP)
            self.host.write("/etc/qemu-netwrap/config.toml", _CONFIG)
        self._until(self._is_up)
        serve = (sys.executable, injected.__file__, "serve")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if self.mode in USERS:
            self.host.run("mount", "--bind", str(self._folder), str(_SHOWN))
            self._user = User(self.host)
            if self.mode == "user":
                self._user.write(".config/qemu-netwrap/config.toml", _USERS_CONFIG)
            else:
                self.host.run("sh", "-euc", _NO_WAY_OUT)
            state = {injected.FOLDER: f"{self._user.runtime_folder}/qemu-netwrap"}
            self._server = self._user.popen(*serve, env=state, **pipes)
        else:
            self._server = self.host.popen(*serve, **pipes)
        self.launch(self.trial(), self._words("true"))  # everything is loaded now
        self.wait_keeper()
        self.before = snapshot(self.host)

    def _is_up(self) -> bool:
        """Whether the kernel has finished with the interfaces."""
        rows = [line.split() for line in self.host.proc_net("if_inet6").splitlines()]
        net = Path(f"/proc/{self.host.pid}/root/sys/class/net")
        addressed = {row[5] for row in rows if row[3] == "20"}  # link-local
        state = (net / "br0/operstate").read_text("ascii")
        return {"eth0", "far-eth0", "far-port0", "br0"} <= addressed and state == "up\n"

    def trial(self, case: Case | None = None, *, dry: bool = False) -> Path:
        """Return the folder of a new trial."""
        self._number += 1
        self.folder = self._folder / str(self._number)
        self.folder.mkdir()
        if self.mode in USERS:
            os.chown(self.folder, self._user.uid, self._user.uid)
        case = case or Case()
        rules: dict[str, Any] = {"dry": dry}
        if case.role:
            rules |= {"role": case.role, "at": case.at, "victims": case.victims}
        if case.after:
            rules |= {"after": case.after}
        (self.folder / "rules").write_text(json.dumps(rules), "utf-8")
        return self.folder

    def events(self) -> list[Event]:
        """Return the events of a whole run."""
        folder = self.trial(dry=True)
        started = self.launch(folder)
        assert started["lives"], self.told()
        self._until(self._sleeps)
        self.end(started["pid"])
        self.wait_keeper()
        wait_same(self.host, self.before)
        found = []
        for line in (folder / "log").read_text("utf-8").splitlines():
            role, number, name = line.split(" ", 2)
            served = name.endswith(" dnsmasq")
            found.append(Event(role, int(number), name.removesuffix(" dnsmasq"), served))
        return found

    def launch(self, folder: Path, words: tuple[str, ...] = ()) -> dict[str, Any]:
        """Launch; return the server's answer: `pid`, `lives`, `status`."""
        argv = ("--", *(words or self._words(self._shown(self._folder / "guest"))))
        return self._ask(folder=self._shown(folder), argv=argv)

    def _shown(self, path: Path) -> str:
        """Return the path by which the program has what is in the subject's folder."""
        return str(_SHOWN / path.relative_to(self._folder) if self.mode in USERS else path)

    def launch_real(self, folder: Path) -> dict[str, Any]:
        """Launch a real QEMU."""
        return self.launch(folder, (REAL_QEMU, *IDLE, *MODES[self.mode]))

    def end(self, pid: int, number: int = signal.SIGKILL) -> None:
        """End QEMU."""
        self._ask(end=pid, signal=number)

    def gc(self, folder: Path) -> int:
        """Run `gc` under the injector; return its status."""
        status: int = self._ask(folder=self._shown(folder), argv=("gc",))["status"]
        return status

    def told(self) -> str:
        """Return what the trial's commands said on standard error."""
        path = self.folder / "err"
        return path.read_text("utf-8") if path.exists() else ""

    def fired(self, file: str = "fired") -> list[str]:
        """Return who was killed."""
        path = self.folder / file
        return path.read_text("utf-8").split() if path.exists() else []

    def settle(self) -> None:
        """Return when the launch phase is over: the keeper waits, or is dead."""
        self._until(self._settled)

    def _sleeps(self) -> bool:
        """Whether the trial's keeper has become flock(1), asleep."""
        pid = injected.pids(str(self.folder)).get(KEEPER, 0)
        return "/runs/" in self.host.processes().get(pid, "")

    def wait_keeper(self, folder: Path | None = None) -> None:
        """Return when the trial's keeper is gone, by itself or by a kill."""
        path = (folder or self.folder) / "pids"
        pid = injected.pids(str(path.parent)).get(KEEPER) if path.exists() else None
        if pid is None:
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ready = select.select([fd], [], [], _PATIENCE)[0]
        os.close(fd)
        assert ready, f"the keeper is not done: {self.host.processes()}"

    def lives(self, role: str) -> bool:
        """Whether a process of the trial lives."""
        return injected.lives(injected.pids(str(self.folder)).get(role, 0))

    def check_network(self, pid: int, *, served: bool = True) -> None:
        """See that the network of a living QEMU is all there; SERVED if dnsmasq has to be."""
        bridge = BRIDGES[self.mode]
        if self.mode in USERS:
            self._check_users(pid, served=served)
            return
        net = Path(f"/proc/{self.host.pid}/root/sys/class/net")
        assert (net / f"qn{pid}-0/master").readlink().name == bridge
        assert int((net / bridge / "flags").read_text("utf-8"), 16) & 1
        if self.mode in SERVED:
            rules = self.host.run("nft", "list", "table", "inet", "qemu_netwrap").stdout
            assert f"chain {bridge}_forward" in rules
            assert (f"chain qn{pid}-0_output" in rules) == (self.mode == "hostfwd")
            assert self.host.listening("tcp", 2222) == (self.mode == "hostfwd")
            folders = Path(f"/proc/{self.host.pid}/root{injected.STATE}")
            # One that was killed early has not written who it was.
            paths = folders.glob(f"*/networks/{bridge}/dnsmasq.pid")
            found = [path.read_text("utf-8") for path in paths]
            assert not served or any(injected.lives(int(pid)) for pid in found)
        if self.mode == "neighbours":
            self._check_accepts(f"-i {bridge}")
        if self.mode in ("nat", "hostfwd", "neighbours"):
            assert self.host.sysctl("net/ipv4/conf/eth0/forwarding") == "1"
            assert self.host.sysctl(f"net/ipv4/conf/{bridge}/forwarding") == "1"

    def _check_users(self, pid: int, *, served: bool) -> None:
        """See that the run of a user's living QEMU is up, and its network whole if SERVED.

        A network follows its way out, whose IPv6 comes a moment later than the rest.
        """

        def told() -> dict[str, Any]:
            found = json.loads(netwrap(self._user, "ps", "--json", check=True).stdout)
            (run,), (network,) = found["runs"], found["networks"]
            assert (run["pid"], run["state"], run["faults"]) == (pid, "running", [])
            return dict(network)

        if served:
            self._until(lambda: not told()["faults"])
            assert told()["dnsmasq"]
            assert self.host.listening("tcp", 2222)
        else:
            told()

    def _check_accepts(self, what: str) -> None:
        """See that every firewall of others lets the network's packets through."""
        listed = self.host.run(_DOCKER, "-S", "DOCKER-USER").stdout
        assert what in listed
        assert listed.count("qemu-netwrap: ") == 2
        listed = self.host.run("nft", "list", "chain", "inet", "theirs", "passing").stdout
        assert listed.count("qemu-netwrap: ") == 3

    def attempt(self, case: Case, *, by_launch: bool = False, real: bool = False) -> bool:
        """Try one case; return whether its kill happened. A leak raises `AssertionError`.

        What nobody who lives can release is released by `gc` or, BY_LAUNCH, by the next launch.
        """
        folder = self.trial(case)
        started = self.launch_real(folder) if real else self.launch(folder)
        if started["lives"]:
            if case.role == WAITER:
                self._until(self._sleeps)
            self._bury(started["pid"])
            if injected.lives(started["pid"]):
                self.settle()
            self._bury(started["pid"])  # it may have been killed last of all
            if injected.lives(started["pid"]):
                # What leads out was a child of the launcher's, the relay one of the keeper's.
                served = DNSMASQ not in case.victims and "-" not in case.role
                self.check_network(started["pid"], served=served)
            self.end(started["pid"])
        self.wait_keeper()
        told = self.told()
        assert "Traceback" not in told, told
        if started["status"] > 0:
            assert started["status"] == 125, started
            assert told.startswith("qemu-netwrap: "), told
        struck = bool(self.fired())
        if case.role and not self._released_by_itself(case, started):
            self._clean(folder, by_launch=by_launch)
        wait_same(self.host, self.before)
        return struck and (not case.after or bool(self.fired("second")))

    def _bury(self, pid: int) -> None:
        """Wait for QEMU's end if it has been killed."""
        if {QEMU, LAUNCHER} & set(self.fired()):
            self._until(lambda: not injected.lives(pid))

    def _settled(self) -> bool:
        """Whether the launch phase is over: the keeper waits, or is dead."""
        return self._sleeps() or not self.lives(KEEPER)

    def _released_by_itself(self, case: Case, started: dict[str, Any]) -> bool:
        """Whether somebody lived to release the run: the keeper, or the launcher that failed."""
        killed = self.fired()
        own = {SELF: {MIDDLE: KEEPER, WAITER: KEEPER}.get(case.role, case.role)}
        dead = {own.get(victim, victim) for victim in killed}
        if self.fired("second"):
            return False
        if KEEPER not in dead and KEEPER in injected.pids(str(self.folder)):
            return True
        return LAUNCHER not in dead and not started["lives"] and started["status"] == 125

    def live_and_die(self, victims: tuple[str, ...], *, by_launch: bool, real: bool) -> None:
        """Kill VICTIMS at once in mid-life; see that QEMU, if it lives, has its network.

        A keeper that was killed is replaced by `gc` or, BY_LAUNCH, a launch of another network.
        """
        folder = self.trial()
        started = self.launch_real(folder) if real else self.launch(folder)
        assert started["lives"], self.told()
        self.settle()
        who = injected.pids(str(folder))
        living = {KEEPER: [who[KEEPER]], QEMU: [started["pid"]], DNSMASQ: self._dnsmasqs()}
        killed = [pid for victim in victims for pid in living[victim]]
        for wait in (False, True):
            for pid in killed:
                injected.kill(pid, wait=wait)
        if QEMU not in victims:
            self.check_network(started["pid"], served=DNSMASQ not in victims)
            assert self.gc(folder) == 0
            self.check_network(started["pid"], served=DNSMASQ not in victims)
        self.end(started["pid"])
        self.wait_keeper()
        if KEEPER in victims:
            other = "host-only" if self.mode in ("bridge existing", *USERS) else "bridge existing"
            self._clean(folder, by_launch=by_launch, mode=other)
        wait_same(self.host, self.before)

    def _dnsmasqs(self) -> list[int]:
        """Return the machine's dnsmasq processes."""
        return [pid for pid, words in self.host.processes().items() if "dnsmasq" in words]

    def _clean(self, folder: Path, *, by_launch: bool, mode: str = "") -> None:
        """Have the next launch or `gc` release what was left; `gc` again if it was killed."""
        if by_launch:
            before = self.fired("second")
            answer = self.launch(folder, self._words("true", mode))
            self.wait_keeper()
            assert "Traceback" not in self.told(), self.told()
            if self.fired("second") == before:
                assert answer["status"] == 0, self.told()
                return
        status = self.gc(folder)
        if status == -signal.SIGKILL:
            status = self.gc(folder)
        assert status == 0, self.told()
        assert "Traceback" not in self.told(), self.told()

    def renew(self) -> None:
        """Begin anew with a fresh machine, after a leak."""
        self.host.close()
        self._begin()

    def _words(self, program: str, mode: str = "") -> tuple[str, ...]:
        """Return a command line for QEMU's stand-in."""
        return (program, *MODES[mode or self.mode])

    def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        wait_for(condition, "the run", _PATIENCE)

    def _ask(self, **told: Any) -> dict[str, Any]:
        """Tell the server something; return its answer."""
        to, back = self._server.stdin, self._server.stdout
        assert to is not None
        assert back is not None
        to.write(json.dumps(told) + "\n")
        to.flush()
        answer: dict[str, Any] = json.loads(back.readline())
        return answer


def singles(events: list[Event]) -> Iterator[Case]:
    """Yield every point of a run with every single victim that lives there."""
    ready = next(e.number for e in events if e.role == KEEPER and e.name == "_send ready")
    for event in events:
        case = Case(event.role, event.number, (SELF,), event=event.name)
        yield case
        if event.is_half:
            continue
        if event.role == LAUNCHER and _has_keeper(events, event):
            yield replace(case, victims=(KEEPER,))
        if event.role.startswith(f"{LAUNCHER}-"):
            yield replace(case, victims=(LAUNCHER,))
        if event.role == KEEPER:
            late = event.number > ready
            yield replace(case, victims=(QEMU if late else LAUNCHER,))
        if event.served and event.role in (KEEPER, WAITER):
            yield replace(case, victims=(DNSMASQ,))


def pairs(events: list[Event]) -> Iterator[Case]:
    """Yield every point of a run with every pair of victims that live there."""
    ready = next(e.number for e in events if e.role == KEEPER and e.name == "_send ready")
    for event in events:
        case = Case(event.role, event.number, (SELF,), event=event.name)
        launcher = QEMU if event.role == KEEPER and event.number > ready else LAUNCHER
        if event.role == KEEPER:
            yield replace(case, victims=(launcher, SELF))
        if event.role == LAUNCHER and _has_keeper(events, event):
            yield replace(case, victims=(KEEPER, SELF))
        if event.role.startswith(f"{LAUNCHER}-"):
            yield replace(case, victims=(LAUNCHER, SELF))
        if event.served and event.role in (KEEPER, WAITER):
            yield replace(case, victims=(DNSMASQ, SELF))
        if event.served and event.role == KEEPER and not event.is_half:
            yield replace(case, victims=(DNSMASQ, launcher))


def _has_keeper(events: list[Event], event: Event) -> bool:
    """Whether a launcher's event comes after it has started the keeper."""
    own = [e for e in events if e.role == LAUNCHER]
    forked = next(e.number for e in own if e.name == "fork in keeper")
    waited = next(e.number for e in own if e.number > forked and e.name.startswith("waitpid"))
    return event.number > waited
