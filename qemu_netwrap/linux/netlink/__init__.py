"""A netlink socket, and the encoding of its messages (linux/netlink.h), in native byte order."""

from __future__ import annotations

import _socket
import errno
import os
import struct

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x8, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
KIND = 0x3FFF  # mask of an attribute's type: without the flags
_RECEIVE = 1 << 16  # the kernel answers in pieces of 32 KB at most

_HEAD = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")


class Netlink:
    """A netlink socket. Every request waits for its answer; errors are raised as `OSError`."""

    def __init__(self, protocol: int) -> None:
        """Open the socket in this process's network namespace."""
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol)
        self._sequence = 0
        self._is_torn = False  # the kernel's data changed during the last dump

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _do(self, kind: int, flags: int, body: bytes) -> None:
        """Make a request that is answered by an acknowledgement. Raises `OSError`."""
        for _ in self._ask(kind, flags | NLM_F_ACK, body, -1):
            pass

    def _ask(self, kind: int, flags: int, body: bytes, answer: int) -> Iterator[bytes]:
        """Make a request; yield the body of every message of type ANSWER. Raises `OSError`."""
        self._sequence += 1
        self._is_torn = False
        self._socket.sendto(message(kind, flags | NLM_F_REQUEST, self._sequence, body), (0, 0))
        single = not flags & (NLM_F_DUMP | NLM_F_ACK)
        while True:
            for got, found_flags, sequence, inside in self._receive():
                if sequence != self._sequence:
                    continue  # the rest of an answer that was not read to its end
                if got == NLMSG_ERROR:
                    _raise(error_of(inside))
                    return
                if found_flags & NLM_F_DUMP_INTR:
                    self._is_torn = True
                if got == NLMSG_DONE:
                    return
                if got == answer:
                    yield inside
                    if single:
                        return

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Receive once; yield type, flags, sequence number and body of each message."""
        buffer = bytearray(_RECEIVE)
        length = self._socket.recv_into(buffer, 0, _socket.MSG_TRUNC)  # of the whole, even if cut
        if length > _RECEIVE:
            raise OSError(errno.EMSGSIZE, "the kernel's answer is longer than can be read")
        data = bytes(memoryview(buffer)[:length])
        at = 0
        while at + _HEAD.size <= len(data):
            size, kind, flags, sequence, _ = _HEAD.unpack_from(data, at)
            yield kind, flags, sequence, data[at + _HEAD.size : at + size]
            at += size + 3 & ~3


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Encode one message, padded to four bytes."""
    size = _HEAD.size + len(body)
    return _HEAD.pack(size, kind, flags, sequence, 0) + body + bytes(-size % 4)


def error_of(body: bytes) -> int:
    """Return the errno in an NLMSG_ERROR message; 0 is success."""
    code: int = struct.unpack_from("=i", body)[0]
    return -code


def _raise(code: int) -> None:
    """Raise the `OSError` of an errno, unless it is 0."""
    if code:
        raise OSError(code, os.strerror(code))


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return _ATTR.pack(_ATTR.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes in DATA from START on: type (without flags) and value."""
    return ((kind & KIND, value) for kind, value in raw_attributes(data, start))


def raw_attributes(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes in DATA from START on: type (with flags) and value."""
    at = start
    while at + _ATTR.size <= len(data):
        size, kind = _ATTR.unpack_from(data, at)
        if size < _ATTR.size:
            return
        yield kind, data[at + _ATTR.size : at + size]
        at += size + 3 & ~3


def u32(value: bytes) -> int:
    """Return the value of an unsigned 32-bit attribute."""
    found: int = _U32.unpack(value)[0]
    return found


if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink import interface_copy as interface_copy
    from qemu_netwrap.linux.netlink import interface_move as interface_move
    from qemu_netwrap.linux.netlink import interface_state as interface_state
    from qemu_netwrap.linux.netlink import link_stats as link_stats
    from qemu_netwrap.linux.netlink import links as links
    from qemu_netwrap.linux.netlink import messages as messages
    from qemu_netwrap.linux.netlink import nft_chains as nft_chains
    from qemu_netwrap.linux.netlink import nft_rules as nft_rules
    from qemu_netwrap.linux.netlink import vf_settings as vf_settings
    from qemu_netwrap.linux.netlink import watch as watch
else:
    __getattr__ = lazy.submodules(__name__)
