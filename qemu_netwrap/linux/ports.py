"""TCP and UDP ports of the host: whether one is in use, reserving one, and which process has it."""

from __future__ import annotations

import _socket
import errno

from qemu_netwrap import linux
from qemu_netwrap.linux import proc

UDP, TCP = _socket.SOCK_DGRAM, _socket.SOCK_STREAM
IPV4, IPV6 = _socket.AF_INET, _socket.AF_INET6
_BOTH = ((IPV4, UDP), (IPV4, TCP), (IPV6, UDP), (IPV6, TCP))
# Addresses that no server is bound to: only one that is bound to all addresses conflicts with them.
# The first is a loopback address; the second is reserved for documentation (RFC 3849), and can be
# bound with IP_FREEBIND (ip(7)).
_NOBODYS = {IPV4: "127.110.119.1", IPV6: "2001:db8:716e::1"}
_BACKLOG = 128  # connections that wait to be accepted; SOMAXCONN before Linux 5.4
_IP_FREEBIND, _IPV6_V6ONLY = 15, 26  # linux/in.h, linux/in6.h


def is_taken(family: int, kind: int, port: int) -> bool:
    """Whether a server has PORT on every address of a FAMILY, and does not share it.

    KIND is `UDP` or `TCP`. The probe's socket receives nothing. Not without the privilege to bind.
    """
    try:
        probe = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
    except OSError:
        return False  # a kernel without that family
    try:
        # As dnsmasq does, and other servers that serve some interfaces only.
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
    """Whether a server has a UDP port of one of the host's addresses, or of all of them.

    Yes without the privilege to bind.
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
    """Return the first of PORTS that is free in both protocols and families; 0 if none is."""
    free = (port for port in ports if not any(is_taken(*each, port) for each in _BOTH))
    return next(free, 0)


def take(protocol: str, address: str, port: int, *, serves: bool = False) -> int:
    """Return the descriptor of a socket that holds a port of ADDRESS. Raises `OSError`.

    PROTOCOL is `tcp` or `udp`. A TCP port is taken even if connections of an earlier server are in
    TIME_WAIT (SO_REUSEADDR), so it must be listened on, or two sockets could have it. Unless it is
    taken for a process that SERVES it, a filter drops whatever arrives: QEMU only inherits it.
    """
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = _socket.SOCK_STREAM if protocol == "tcp" else _socket.SOCK_DGRAM
    taken = _socket.socket(family, kind)
    try:
        if family == IPV6:  # another server may have the port of IPv4
            taken.setsockopt(_socket.IPPROTO_IPV6, _IPV6_V6ONLY, 1)
        if protocol == "tcp":
            taken.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if not serves:
            linux.socket_filter.drop_all(taken)
        taken.bind((address, port))
        if protocol == "tcp":
            taken.listen(_BACKLOG if serves else 0)
    except OSError:
        taken.close()
        raise
    return taken.detach()


def holder(protocol: str, port: int) -> str:
    """Return the process that has a port, as `PROGRAM (pid N)`; empty if none is found."""
    sockets = proc.sockets(protocol, port) | proc.sockets(f"{protocol}6", port)
    for pid in proc.pids():
        if not sockets.isdisjoint(proc.fd_links(pid)):
            return linux.holders.named(pid)
    return ""
