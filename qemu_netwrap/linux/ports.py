"""Ports of the host: whether one is taken, taking one, and who has one that cannot be."""

from __future__ import annotations

import _socket
import errno

from qemu_netwrap import linux
from qemu_netwrap.linux import proc

UDP, TCP = _socket.SOCK_DGRAM, _socket.SOCK_STREAM
IPV4, IPV6 = _socket.AF_INET, _socket.AF_INET6
_BOTH = ((IPV4, UDP), (IPV4, TCP), (IPV6, UDP), (IPV6, TCP))
# Nobody's own: only who is bound to every address is in the way of it. The one is of this host
# alone; the other is for documentation (RFC 3849), to be bound to all the same (ip(7)).
_NOBODYS = {IPV4: "127.110.119.1", IPV6: "2001:db8:716e::1"}
_IP_FREEBIND, _IPV6_V6ONLY = 15, 26  # linux/in.h, linux/in6.h


def is_taken(family: int, kind: int, port: int) -> bool:
    """Whether somebody who does not share it is bound to PORT on every address of a FAMILY.

    Nothing comes in by the socket of this question. Without the privilege nobody is found.
    """
    try:
        probe = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
    except OSError:
        return False  # a kernel without that family
    try:
        # As dnsmasq does, and as those do who are content with interfaces of their own.
        probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == IPV6:
            probe.setsockopt(_socket.IPPROTO_IPV6, _IPV6_V6ONLY, 1)
            probe.setsockopt(_socket.IPPROTO_IP, _IP_FREEBIND, 1)
        probe.bind((_NOBODYS[family], port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    finally:
        probe.close()
    return False


def is_held(address: str, port: int) -> bool:
    """Whether somebody is bound to a UDP port of an address of the host, or of every address.

    Without the privilege to ask it is taken to be so.
    """
    family = IPV6 if ":" in address else IPV4
    try:
        probe = _socket.socket(family, UDP | _socket.SOCK_CLOEXEC)
    except OSError:
        return False  # a kernel without that family
    try:
        probe.bind((address, port))
    except OSError as error:
        return error.errno in (errno.EADDRINUSE, errno.EACCES)
    finally:
        probe.close()
    return False


def first_free(ports: tuple[int, ...]) -> int:
    """Return the first of PORTS that nobody has, in any protocol; 0 if all are taken."""
    free = (port for port in ports if not any(is_taken(*each, port) for each in _BOTH))
    return next(free, 0)


def take(protocol: str, address: str, port: int) -> int:
    """Return a socket's descriptor that holds a TCP or UDP port, of every address without one.

    Raises `OSError`. As servers do, a TCP port is taken although connections of an earlier server
    are not quite over: so it must be listened on, or two could have it. Nothing can be received by
    the socket: QEMU, which inherits it, has no business with who comes to that port of the host.
    """
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = _socket.SOCK_STREAM if protocol == "tcp" else _socket.SOCK_DGRAM
    taken = _socket.socket(family, kind)
    try:
        if family == IPV6:  # of IPv4 another may have the port
            taken.setsockopt(_socket.IPPROTO_IPV6, _IPV6_V6ONLY, 1)
        if protocol == "tcp":
            taken.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        linux.socket_filter.drop_all(taken)
        taken.bind((address, port))
        if protocol == "tcp":
            taken.listen(0)
    except OSError:
        taken.close()
        raise
    return taken.detach()


def holder(protocol: str, port: int) -> str:
    """Return who has a port, as `PROGRAM (pid N)`; empty if nobody is seen to."""
    sockets = proc.sockets(protocol, port) | proc.sockets(f"{protocol}6", port)
    for pid in proc.pids():
        if not sockets.isdisjoint(proc.fd_links(pid)):
            return linux.holders.named(pid)
    return ""
