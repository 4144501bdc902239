"""Taps: created by /dev/net/tun, removed with their last descriptor (drivers/net/tun.c)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files

DEVICE, VHOST = "/dev/net/tun", "/dev/vhost-net"
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, IFF_TUN_EXCL = 0x2, 0x1000, 0x4000, 0x100, 0x8000
IFF_PERSIST = 0x800
_IFREQ = struct.Struct("16sH22x")
_SOCKET = '"$HOME/passt.sock"'
WITHOUT = (
    "without a tap: -nic user"
    f"; or, with QEMU from 7.2 on, passt: passt --one-off -s {_SOCKET}"
    f" && qemu-system-x86_64 -netdev stream,id=n0,server=off,addr.type=unix,addr.path={_SOCKET}"
    " -device virtio-net-pci,netdev=n0"
)


def open_tap(name: str, queues: int, *, vnet_hdr: bool) -> list[int]:
    """Create a tap and return a descriptor for each queue.

    Raises `OSError` with EBUSY if an interface with that name exists, and `HostError` with the
    remedy if taps cannot be created at all.
    """
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
    if queues > 1:
        flags |= IFF_MULTI_QUEUE
    fds: list[int] = []
    try:
        for number in range(queues):
            fds.append(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
            # The first must create the tap, not attach to one; the others attach to it.
            exclusive = 0 if number else IFF_TUN_EXCL
            fcntl.ioctl(fds[-1], TUNSETIFF, _IFREQ.pack(name.encode(), flags | exclusive))
    except OSError as error:
        for fd in fds:
            os.close(fd)
        if error.errno == errno.EBUSY:
            raise
        raise no_tap(error) from error
    return fds


def is_persistent(name: str) -> bool:
    """Whether a tap remains when no process has it open."""
    flags = files.peek(f"/sys/class/net/{name}/tun_flags").strip()
    return bool(flags) and bool(int(flags, 16) & IFF_PERSIST)


def open_vhost(count: int) -> list[int]:
    """Return COUNT descriptors of /dev/vhost-net. Raises `HostError`."""
    try:
        return [os.open(VHOST, os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]
    except OSError as error:
        raise no_vhost(error) from error


def no_tap(error: OSError) -> HostError:
    """Return the error for taps that cannot be created."""
    hint = linux.remedies.remedy(error, f"is it the tun device? ls -l {DEVICE}: 10, 200", DEVICE)
    return HostError(f"taps: {DEVICE}: {error.strerror}", f"{hint}; {WITHOUT}")


def no_vhost(error: OSError) -> HostError:
    """Return the error for a vhost=on that is not possible."""
    hint = linux.remedies.remedy(error, "modprobe vhost_net", VHOST)
    return HostError(f"vhost=on: {VHOST}: {error.strerror}", f"leave out vhost=on; {hint}")
