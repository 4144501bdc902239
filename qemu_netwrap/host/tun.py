"""Taps: made by opening /dev/net/tun, gone with the last descriptor (drivers/net/tun.c)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from qemu_netwrap.core.errors import HostError
from qemu_netwrap.host import files

DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, IFF_TUN_EXCL = 0x2, 0x1000, 0x4000, 0x100, 0x8000
IFF_PERSIST = 0x800
_IFREQ = struct.Struct("16sH22x")

_REMEDIES = {
    errno.ENOENT: "load the module: modprobe tun; in a container, pass the device in",
    errno.ENODEV: "the kernel has no tun driver: modprobe tun",
    errno.EACCES: "run as root, or let this user at the device (udev makes it 0666)",
    errno.EPERM: "this needs CAP_NET_ADMIN: run as root; -nic user needs no privilege",
}


def open_tap(name: str, queues: int, *, vnet_hdr: bool) -> list[int]:
    """Make a tap and return a descriptor for each queue.

    Raises `OSError` with EBUSY when an interface of that name is there already, and `HostError`
    with the remedy when taps cannot be had here at all.
    """
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
    if queues > 1:
        flags |= IFF_MULTI_QUEUE
    fds: list[int] = []
    try:
        for number in range(queues):
            fds.append(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
            # The first must make the tap, not join one; the others join it.
            exclusive = 0 if number else IFF_TUN_EXCL
            fcntl.ioctl(fds[-1], TUNSETIFF, _IFREQ.pack(name.encode(), flags | exclusive))
    except OSError as error:
        for fd in fds:
            os.close(fd)
        if error.errno == errno.EBUSY:
            raise
        from qemu_netwrap.host.remedies import remedy

        hint = remedy(error, f"is it the tun device? ls -l {DEVICE}: 10, 200")
        hint = _REMEDIES.get(error.errno or 0, hint)
        raise HostError(f"tap {name}: {DEVICE}: {error.strerror}", hint) from error
    return fds


def is_persistent(name: str) -> bool:
    """Whether a tap stays when nobody has it open."""
    flags = files.peek(f"/sys/class/net/{name}/tun_flags").strip()
    return bool(flags) and bool(int(flags, 16) & IFF_PERSIST)


def open_vhost(count: int) -> list[int]:
    """Return COUNT descriptors of /dev/vhost-net. Raises `HostError`."""
    try:
        return [os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]
    except OSError as error:
        from qemu_netwrap.host.remedies import remedy

        raise HostError(
            f"vhost=on: /dev/vhost-net: {error.strerror}",
            remedy(error, "load the module: modprobe vhost_net; or leave out vhost=on"),
        ) from error
