"""Port forwards: who has the host's ports before anything is made.

QEMU holds them as if it listened, and nftables forwards to the guest; in a user's realm, where the
host's rules cannot be changed, a relay serves them (resources.port_relay).
"""

from __future__ import annotations

import errno
import os

from qemu_netwrap import linux, realm
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import polling, ports
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.runtime import runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.model.run import PortForward, TapRequest
    from qemu_netwrap.state import StateDir


_RELEASE_TIMEOUT = 0.5  # seconds for the kernel to close the ports of a QEMU that was killed
_POLL_INTERVAL = 0.01  # seconds

_NEEDS_ROOT = (
    'ports below 1024 need root: sudo qemu-netwrap --run-as "$USER" -- qemu-system-x86_64 ...'
)


def hold(nics: Iterable[TapRequest], state: StateDir) -> tuple[int, ...]:
    """Take the host's ports that lead to NICS; return the descriptors that hold them.

    QEMU inherits them: a port is free again when the last process of its QEMU ends, in any way.
    Raises a `HostError` that names the run or process that has a port already.
    """
    held: list[int] = []
    for nic in nics:
        for forward in nic.forwards:
            try:
                held.append(take(forward))
            except OSError as error:
                for fd in held:
                    os.close(fd)
                raise _refusal(nic, forward, error, state) from error
    return tuple(held)


def take(forward: PortForward) -> int:
    """Take a port and return its descriptor; retry while a QEMU that was just killed has it.

    Raises `OSError`.
    """
    address = forward.host or ("::" if forward.is_ipv6 else "0.0.0.0")  # noqa: S104 - as slirp does

    def bound() -> int:
        return ports.take(forward.protocol, address, forward.port, serves=realm.is_users())

    return polling.retry(bound, errno.EADDRINUSE, _RELEASE_TIMEOUT, _POLL_INTERVAL)


def check(nics: Iterable[TapRequest], state: StateDir) -> None:
    """Raise the `HostError` that `hold` would, as far as this user can see."""
    try:
        held = hold(nics, state)
    except HostError as error:
        if isinstance(error.__cause__, PermissionError):
            return
        raise
    for fd in held:
        os.close(fd)


def _refusal(nic: TapRequest, forward: PortForward, error: OSError, state: StateDir) -> HostError:
    """Return the error for a port that could not be taken."""
    port = f"{nic.label}: {forward.protocol} port {forward.port} of the host"
    if error.errno == errno.EADDRINUSE:
        run = _run_with(forward, state)
        by = f"run {run}" if run else ports.holder(forward.protocol, forward.port)
        stop = f", or end that run: qemu-netwrap stop {run.partition(' ')[0]}" if run else ""
        return HostError(
            f"{port} is taken{f' by {by}' if by else ''}",
            f"choose another port for hostfwd={stop}",
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return HostError(
            f"{nic.label}: {forward.host or '::'} is no address of this host",
            "see ip address; without one, hostfwd=tcp::2222-:22, the port of all of them is led",
        )
    if error.errno == errno.EINVAL:
        return HostError(
            f"{nic.label}: {forward.host} is a link-local or multicast address",
            "name another address of this host (ip address), or none",
        )

    if realm.is_users():
        allow = f"sudo sysctl net.ipv4.ip_unprivileged_port_start={forward.port}"
        return HostError(f"{port}: {error.strerror}", f"choose one from 1024 on; or {allow}")
    return HostError(
        f"{port}: {error.strerror}", linux.remedies.remedy(error, _NEEDS_ROOT, "ports")
    )


def _run_with(forward: PortForward, state: StateDir) -> str:
    """Return the living run that has the port, with its guest's name; "" if none has."""
    for run in filter(state.is_alive, state.runs()):
        info, nics = runs.read_info(state, run)
        for nic in nics:
            if any(map(forward.meets, hostfwd.known(nic.forwards.split()))):
                return f"{run} ({info.name})" if info.name else run
    return ""
