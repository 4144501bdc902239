"""Ports of the host relayed to guests, by a process, where no packet filter can forward them.

Sockets belong to the network namespace in which they were created (network_namespaces(7)). A
process inside the namespace of an ordinary user's networks accepts on sockets that were bound
outside, and connects to the guest by sockets of its own. The client's address is not kept: to the
guest every client is the bridge's own address.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os

from qemu_netwrap.linux import files, rlimits, syscalls, tcp_relay, udp_relay
from qemu_netwrap.linux.event_loop import Loop
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_SPARE = 64  # descriptors; the loop's own, and those that are about to be closed


class Relayed(Record):
    """A port of the host, and where in the guest it leads."""

    fd: int  # a bound socket, of IPv4 or IPv6
    proto: str  # tcp or udp
    target: str  # the guest's address, of IPv4 or IPv6, whichever the socket's is
    port: int


def start(relayed: Sequence[Relayed], go: int = -1) -> int:
    """Start a child that relays; return its pid. Clients can connect at once.

    With GO, the end of a pipe, it serves them from the first byte on, and ends if none comes. It is
    in a session of its own, and keeps the sockets alone: no lock, and no tap. It has no
    capabilities, and ends by SIGTERM or SIGKILL, or if a socket cannot be relayed. Raises `OSError`
    if one cannot be listened on.
    """
    for each in relayed:
        if each.proto == "tcp":
            tcp_relay.listen(each.fd)
    pid = os.fork()
    if pid:
        return pid
    try:
        _set_apart({each.fd for each in relayed} | {go})
        if go < 0 or _may_go(go):
            serve(relayed)
    except BaseException:  # noqa: BLE001, S110 - a forked child must not return
        pass
    os._exit(1)


def _may_go(go: int) -> bool:
    """Wait for a byte from a pipe, and close it; return whether one came."""
    try:
        return bool(os.read(go, 1))
    finally:
        os.close(go)


def _set_apart(kept: set[int]) -> None:
    """Give up what was inherited, but for the descriptors KEPT."""
    # Objects of the caller would close descriptors by number when they are collected.
    gc.freeze()
    for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)  # splice(2) has no MSG_NOSIGNAL
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.setsid()
    os.chdir("/")
    files.close_from(0, *kept)
    null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for fd in {0, 1, 2} - kept - {null}:
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
    syscalls.drop_capabilities()


def serve(relayed: Sequence[Relayed]) -> NoReturn:
    """Relay until killed. Raises `OSError` if a socket is none that can be relayed."""
    loop = Loop()
    tcp, udp = tcp_relay.TcpRelay(loop), udp_relay.UdpRelay(loop)
    rlimits.raise_open_files(
        _SPARE
        + len(relayed)
        + 2 * tcp_relay.MOST_CONNECTIONS
        + udp_relay.MOST_SESSIONS * sum(each.proto == "udp" for each in relayed)
    )
    for each in relayed:
        relay = tcp if each.proto == "tcp" else udp
        relay.relay(_socket.socket(fileno=each.fd), each.target, each.port)
    loop.run()
