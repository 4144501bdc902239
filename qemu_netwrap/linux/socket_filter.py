"""Filters on sockets of this program's own (socket(7), SO_ATTACH_FILTER; linux/filter.h)."""

from __future__ import annotations

import _socket
import array
import struct

from qemu_netwrap.linux import bpf

_SO_ATTACH_FILTER, _SO_LOCK_FILTER = 26, 44  # include/uapi/asm-generic/socket.h
# What a filter returns: how many bytes of a packet are queued.
ACCEPT, IGNORE = 0xFFFFFFFF, 0


def attach(to: _socket.socket, program: list[bpf.Line]) -> None:
    """Have PROGRAM decide which packets are queued on a socket, instead of any earlier filter."""
    code = array.array("B", bpf.assemble(program))
    # struct sock_fprog: the number of instructions, and a pointer to them.
    filter_ = struct.pack("HP", len(code) // bpf.INSTRUCTION.size, code.buffer_info()[0])
    to.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def drop_all(taken: _socket.socket) -> None:
    """Have the kernel drop whatever arrives at a socket, for good (SO_LOCK_FILTER)."""
    attach(taken, [("ret", IGNORE, "", "")])
    taken.setsockopt(_socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
