"""A filter on a socket of our own (socket(7), SO_ATTACH_FILTER; linux/filter.h)."""

from __future__ import annotations

import _socket
import array
import struct

_SO_ATTACH_FILTER, _SO_LOCK_FILTER = 26, 44  # include/uapi/asm-generic/socket.h
_RETURN = 0x06  # classic BPF (linux/bpf_common.h): 0 drops the packet


def drop_all(taken: _socket.socket) -> None:
    """Have the kernel drop whatever comes in by a socket, for good (SO_LOCK_FILTER)."""
    code = array.array("B", struct.pack("=HBBI", _RETURN, 0, 0, 0))
    filter_ = struct.pack("HP", 1, code.buffer_info()[0])  # struct sock_fprog
    taken.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
    taken.setsockopt(_socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
