"""Acts on a simulated machine with the package's own journal, ledger and networks.

`Actor` is the tests' side: a process inside the machine that does one thing after the other as it
is told, and can be killed, or told to die, in the middle of it. Run as a program, this file is that
process: a JSON object a line comes in on standard input, one goes out on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from qemu_netwrap import state
from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.linux import files, sysctl, tun
from qemu_netwrap.linux.child import Child
from qemu_netwrap.linux.dbus import Bus
from qemu_netwrap.linux.netlink.interface_copy import InterfaceNetlink
from qemu_netwrap.linux.netlink.links import Rtnl
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.network import Network
from qemu_netwrap.resources.base import Context, Resource, from_line
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.runtime import executor, membership, pinning, runs, status
from qemu_netwrap.runtime.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.netns import Host

DIED = 9
# Whatever changes something outside the process: after each of these it may die.
STEPS = (
    *((Journal, "_append"), (Rtnl, "_do"), (sysctl, "write"), (tun, "open_tap")),
    *((InterfaceNetlink, "batch"), (Bus, "call")),
    *((files, "write"), (files, "remove"), (files, "make_folder"), (files, "remove_folder")),
    *((Child, "__init__"), (Child, "wait")),
)


class DiedError(Exception):
    """The actor died in the middle of what it was told."""


def dies(act: Callable[..., object], *args: object, **told: object) -> bool:
    """Have an actor do something; tell whether it died of it."""
    try:
        act(*args, **told)
    except DiedError:
        return True
    return False


class Actor:
    """A process on a machine. Owners of resources are `run/NAME` and `net/BRIDGE`."""

    def __init__(self, host: Host) -> None:
        """Start it."""
        self._process = host.popen(
            *(sys.executable, __file__), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        """Return the actor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, as abruptly as a crash."""
        self.kill()

    def kill(self) -> None:
        """End it by SIGKILL; may be called again."""
        self._process.kill()
        self._process.communicate()

    def acquire(self, owner: str, *resources: Resource, die: int | str = 0) -> dict[str, Any]:
        """Acquire resources in order; with DIE, die after that many steps or the one so named."""
        return self._do("acquire", owner, *(r.to_line() for r in resources), die=die)

    def release(self, owner: str, die: int = 0) -> dict[str, Any]:
        """Release what an owner has, and tidy up."""
        return self._do("release", owner, die=die)

    def live(self, run: str) -> None:
        """Hold a run's lock, as its QEMU does."""
        self._do("live", run)

    def end(self, run: str) -> dict[str, Any]:
        """Let a run's lock go, and release the run."""
        return self._do("end", run)

    def join(self, run: str, die: int = 0, **network: Any) -> dict[str, Any]:
        """Make a run, which lives from now on, a member of a network; the answer has its info."""
        return self._do("join", run, json.dumps(network), die=die)

    def pin(self, die: int = 0, **network: Any) -> dict[str, Any]:
        """Keep a network up, as `network up` does."""
        return self._do("pin", json.dumps(network), die=die)

    def unpin(self, bridge: str, die: int = 0) -> dict[str, Any]:
        """Keep a network up no longer, as `network down` does; its users are in the answer."""
        return self._do("unpin", bridge, die=die)

    def collect(self) -> dict[str, Any]:
        """Release what the dead have left, as `gc` does."""
        return self._do("collect")

    def _do(self, verb: str, *words: str, die: int | str = 0) -> dict[str, Any]:
        """Return `errors`, `said`, `steps` and perhaps more of what is done. Raises `DiedError`."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        to.write(json.dumps({"verb": verb, "words": words, "die": die}) + "\n")
        to.flush()
        line = back.readline()
        if not line:
            assert self._process.wait(10) == DIED
            raise DiedError
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Server:
    """The process on the machine."""

    def __init__(self) -> None:
        state.prepare()
        self.state = state.StateDir.here()
        self.said: list[str] = []
        self.work = Context(self.state, self.said.append)
        self.locks: dict[str, int] = {}
        self.steps = 0
        self.die: int | str = 0
        for place, name in STEPS:
            setattr(place, name, self._counted(name, getattr(place, name)))

    def serve(self) -> None:
        """Do as told until standard input ends."""
        for line in sys.stdin:
            told = json.loads(line)
            self.said.clear()
            self.steps, self.die = 0, told["die"]
            answer = getattr(self, told["verb"])(*told["words"])
            sys.stdout.write(
                json.dumps({"errors": [], "said": self.said, "steps": self.steps, **answer}) + "\n"
            )
            sys.stdout.flush()

    def acquire(self, owner: str, *lines: str) -> dict[str, Any]:
        files.make_folder(self.state.shared_folder)
        files.make_folder(self._folder(owner))
        journal = Journal(f"{self._folder(owner)}/journal")
        return self._told(
            lambda: executor.acquire_all([from_line(line) for line in lines], journal, self.work)
        )

    def release(self, owner: str) -> dict[str, Any]:
        kind, _, name = owner.partition("/")
        if kind == "net":
            errors = membership.leave(name, "0", self.work)
        else:
            journal = Journal(f"{self._folder(owner)}/journal")
            errors = executor.release_all(journal, self.work)
            if not errors:
                files.remove_folder(self._folder(owner))
        self.state.tidy()
        return {"errors": [error.message for error in errors]}

    def live(self, run: str) -> dict[str, Any]:
        self.locks[run] = files.open_locked(f"{self.state.run(run)}/lock")
        return {}

    def end(self, run: str) -> dict[str, Any]:
        os.close(self.locks.pop(run))
        errors = runs.release(self.state, run, self.said.append)
        return {"errors": [error.message for error in errors]}

    def pin(self, fields: str) -> dict[str, Any]:
        return self._told(lambda: pinning.pin(_network(fields), self.work, ()))

    def unpin(self, bridge: str) -> dict[str, Any]:
        dropped: list[pinning.Dropped] = []
        told = self._told(lambda: dropped.append(pinning.unpin(bridge, self.work)))
        return {**told, **({"dropped": dropped[0].__dict__} if dropped else {})}

    def collect(self) -> dict[str, Any]:
        released, errors = status.collect(self.state)
        return {"released": released, "errors": [error.message for error in errors]}

    def join(self, run: str, fields: str) -> dict[str, Any]:
        network = _network(fields)
        if run not in self.locks:
            self.live(run)
        Journal(f"{self.state.run(run)}/journal").intend(Membership(network.bridge, run))
        infos: list[membership.NetworkInfo] = []
        told = self._told(lambda: infos.append(membership.join(network, run, self.work)))
        return {**told, **({"info": infos[0].__dict__} if infos else {})}

    def _folder(self, owner: str) -> str:
        kind, _, name = owner.partition("/")
        return self.state.network(name) if kind == "net" else self.state.run(name)

    def _told(self, action: Callable[[], object]) -> dict[str, Any]:
        try:
            action()
        except NetwrapError as error:
            return {"errors": [error.message], "hint": error.hint}
        return {}

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kw: Any) -> Any:  # noqa: ANN401 - whatever the real one takes
            result = real(*args, **kw)
            self.steps += 1
            if self.die in (self.steps, name):
                os._exit(DIED)
            return result

        return counted


def _network(fields: str) -> Network:
    """Return a network that was described in JSON."""
    described = json.loads(fields)
    if "subnet" in described:
        described["subnet"] = Subnet.parse(described["subnet"])
    return Network(**described)


if __name__ == "__main__":
    _Server().serve()
