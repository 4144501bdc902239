"""Being woken by what happens to one interface, and by nothing else that happens on the host."""

from __future__ import annotations

import _socket
import array
import errno
import struct
import sys

from qemu_netwrap.linux.netlink.links import NETLINK_ROUTE, RTM_DELLINK, RTM_NEWLINK

RTMGRP_LINK = 1
SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h

# Classic BPF (linux/bpf_common.h, linux/filter.h), as far as it is used here.
_LOAD_HALF, _LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x28, 0x20, 0x15, 0x06
_PASS, _DROP = 0xFFFFFFFF, 0
_TYPE_AT, _INDEX_AT = 4, 20  # of nlmsghdr's nlmsg_type, and ifinfomsg's ifi_index behind it
_MESSAGE = 1 << 16
_INSTRUCTION = struct.Struct("=HBBI")


def watch(index: int) -> _socket.socket:
    """Return a socket that can be read when interface number INDEX changes or goes.

    The kernel's messages are for the whole network namespace; a socket filter drops those of other
    interfaces before they are queued, so that nobody wakes up for them.
    """
    found = _socket.socket(
        _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE
    )
    attach(found, _program(index))
    found.bind((0, RTMGRP_LINK))
    return found


def attach(to: _socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Have a filter decide which messages are queued on a socket, in place of one it had."""
    code = array.array("B", b"".join(_INSTRUCTION.pack(*step) for step in program))
    # struct sock_fprog: the length and a pointer to the program.
    filter_ = struct.pack("HP", len(program), code.buffer_info()[0])
    to.setsockopt(_socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


def wait(watched: _socket.socket) -> None:
    """Sleep until something has happened to the interface."""
    try:
        watched.recv(_MESSAGE)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # a message was lost: it has happened all the same
            raise


def _program(index: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return the filter; a jump's two numbers are how many steps to skip, if equal and if not."""
    return (
        (_LOAD_HALF, 0, 0, _TYPE_AT),
        (_JUMP_IF_EQUAL, 1, 0, as_loaded(RTM_NEWLINK, 2)),
        (_JUMP_IF_EQUAL, 0, 3, as_loaded(RTM_DELLINK, 2)),
        (_LOAD_WORD, 0, 0, _INDEX_AT),
        (_JUMP_IF_EQUAL, 0, 1, as_loaded(index, 4)),
        (_RETURN, 0, 0, _PASS),
        (_RETURN, 0, 0, _DROP),
    )


def as_loaded(number: int, size: int) -> int:
    """Return a number of a netlink message as BPF loads it: it takes all for big-endian."""
    return int.from_bytes(number.to_bytes(size, sys.byteorder), "big")
