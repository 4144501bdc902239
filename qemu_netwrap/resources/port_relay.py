"""Port forwards of a user's realm: a process that accepts on the host and connects to the guest."""

from __future__ import annotations

import os
from _signal import SIGKILL

from qemu_netwrap import linux
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.port_relay import Relayed
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

    def acquire(self, context: Context) -> Iterator[None]:
        """Start the relay; it serves nothing until its process is recorded."""
        relayed = [_relayed(each, context) for each in hostfwd.known(self.forwards.split())]
        waiting, go = os.pipe2(os.O_CLOEXEC)
        pid = linux.port_relay.start(relayed, waiting)
        os.close(waiting)
        process = linux.proc.of(pid)
        context.remember(pid=str(process.pid), started=process.started)
        os.write(go, b"+")
        os.close(go)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """End the relay; one that was not recorded has ended by itself."""
        if "pid" in saved:
            process = linux.proc.Process(int(saved["pid"]), saved["started"])
            linux.waits.process(process, _END_TIMEOUT, SIGKILL)
        yield

    def explain(self) -> Commands:
        """Return comments: no command does the same."""
        led = self.forwards.replace(" ", ", ")
        return Commands((f"# a relay leads {led}",), ("# the relay ends",))


def _relayed(forward: PortForward, context: Context) -> Relayed:
    """Return a forward with the descriptor of its port."""
    key = forward.protocol, forward.host, forward.port, forward.is_ipv6
    return linux.port_relay.Relayed(
        context.ports[key], forward.protocol, forward.guest, forward.guest_port
    )
