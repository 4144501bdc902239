"""Ports that somebody has taken on every address of the host."""

from __future__ import annotations

import _socket
import errno

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


def first_free(ports: tuple[int, ...]) -> int:
    """Return the first of PORTS that nobody has, in any protocol; the last if all are taken."""
    free = (port for port in ports if not any(is_taken(*each, port) for each in _BOTH))
    return next(free, ports[-1])
