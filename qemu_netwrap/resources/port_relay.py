"""Port forwards of a user's realm: a process that accepts on the host and connects to the guest.

A file in the run's folder tells which process that is, from its start until it is released. Who
starts it again, or ends it, has the file locked: so none is started for a run that is over.
"""

from __future__ import annotations

import os
from _signal import SIGKILL

from qemu_netwrap import linux, record_text
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.linux.port_relay import Relayed
    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.model.run import PortForward
    from qemu_netwrap.resources.base import Context, Saved

_END_TIMEOUT = 5.0  # seconds


class PortRelay(Resource):
    """The relay of a NIC's port forwards, which are as hostfwd= has them, separated by spaces.

    It has the host's ports from the launcher, which took them outside.
    """

    kind = "PortRelay"

    tap: str
    forwards: str
    run: str = ""

    def acquire(self, context: Context) -> Iterator[None]:
        """Start the relay; it serves nothing until its process is recorded."""
        file = context.state.relay(self.run, self.tap)
        self._start(context, lambda text: linux.files.write(file, text))
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """End the relay; one that was not recorded has ended by itself."""
        file = context.state.relay(self.run, self.tap)
        lock = linux.files.open_locked_again(file)
        if lock >= 0:
            process = read(file)
            if process is not None:
                linux.waits.process(process, _END_TIMEOUT, SIGKILL)
            linux.files.remove(file)
            os.close(lock)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether it has died; not before it was recorded, nor once it is released."""
        file = context.state.relay(self.run, self.tap)
        process = read(file)
        if process is None:
            return os.path.exists(file)
        return not linux.proc.is_running(process)

    def loss(self, context: Context) -> str:
        """Return that it has died, if it has."""
        if not self.is_missing(context, {}):
            return ""
        return f"run {self.run}: what led {self._led} has died"

    def ports_lost(self, context: Context) -> tuple[PortForward, ...]:
        """Return its forwards, if it has died: the host's ports went with it."""
        return hostfwd.known(self.forwards.split()) if self.is_missing(context, {}) else ()

    def start_again(self, context: Context) -> None:
        """Start it again, if it has died, with the ports in CONTEXT; all of them must be there."""
        lock = linux.files.open_locked_again(context.state.relay(self.run, self.tap))
        if lock < 0:
            return
        try:
            if self.is_missing(context, {}):
                self._start(context, lambda text: _overwrite(lock, text))
        finally:
            os.close(lock)

    def explain(self) -> Commands:
        """Return comments: no command does the same."""
        return Commands((f"# a relay leads {self._led}",), ("# the relay ends",))

    @property
    def _led(self) -> str:
        """The forwards, as text."""
        return self.forwards.replace(" ", ", ")

    def _start(self, context: Context, record: Callable[[str], None]) -> None:
        """Start the process, have it recorded, and let it serve."""
        relayed = [_relayed(each, context) for each in hostfwd.known(self.forwards.split())]
        waiting, go = os.pipe2(os.O_CLOEXEC)
        pid = linux.port_relay.start(relayed, waiting)
        os.close(waiting)
        fields = {"pid": str(pid), "started": linux.proc.started(pid)}
        record(record_text.write("relay", fields) + "\n")
        os.write(go, b"+")
        os.close(go)


def read(file: str) -> Process | None:
    """Return the process that FILE records, which may have ended; None without a record."""
    try:
        fields = record_text.read(linux.files.read(file).rstrip("\n"))[1]
        return linux.proc.Process(int(fields["pid"]), fields["started"])
    except (KeyError, ValueError):
        return None


def _overwrite(fd: int, text: str) -> None:
    """Replace the text of an open file, whose lock must stay."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, text.encode(), 0)


def _relayed(forward: PortForward, context: Context) -> Relayed:
    """Return a forward with the descriptor of its port."""
    key = forward.protocol, forward.host, forward.port, forward.is_ipv6
    return linux.port_relay.Relayed(
        context.ports[key], forward.protocol, forward.guest, forward.guest_port
    )
