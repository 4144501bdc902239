"""Device nodes and the drivers behind them. Looking at them loads no driver."""

from __future__ import annotations

import errno
import os

from qemu_netwrap.linux import files
from qemu_netwrap.record import Record

TUN, VHOST = "/dev/net/tun", "/dev/vhost-net"
# A driver is loaded or built in, can be loaded, or is not there.
LOADED, LOADABLE, MISSING = "loaded", "loadable", "missing"
WRONG_NODE = -1  # stands beside the errnos: what is there is another device, or none
# A function of each driver: how one that is built in is told where no module list is.
_SYMBOLS = {
    "bridge": "br_add_bridge", "kvm": "kvm_init", "nf_tables": "nf_tables_newtable",
    "tun": "tun_chr_open", "vhost_net": "vhost_net_open",
}  # fmt: skip


class Device(Record):
    """A device node and its driver."""

    path: str
    driver: str  # LOADED, LOADABLE or MISSING
    error: int = 0  # the errno with which it cannot be opened; 0 if it can, or was not tried


def driver(name: str) -> str:
    """Return whether the kernel has a driver: LOADED (or built in), LOADABLE or MISSING.

    Modules with parameters have a folder in /sys/module even when they are built in; of the
    others modules.builtin tells, or, where there is none, the kernel's symbols.
    """
    if os.path.isdir(f"/sys/module/{name}"):
        return LOADED
    lists = f"/lib/modules/{os.uname().release}"
    ends = tuple(f"/{name.replace('_', mark)}.ko" for mark in "_-")
    if any(line.endswith(ends) for line in files.peek(f"{lists}/modules.builtin").splitlines()):
        return LOADED
    if f" {_SYMBOLS[name]}\n" in files.peek("/proc/kallsyms"):
        return LOADED
    known = (line.partition(":")[0] for line in files.peek(f"{lists}/modules.dep").splitlines())
    return LOADABLE if any(end in path for path in known for end in ends) else MISSING


def tun() -> Device:
    """Look at the device that taps are made by."""
    return look(TUN, "tun", (10, 200))


def vhost_net() -> Device:
    """Look at the device that vhost=on takes."""
    return look(VHOST, "vhost_net", (10, 238))


def look(path: str, module: str, number: tuple[int, int]) -> Device:
    """Look at a device node; open it only when that cannot load a driver (devname aliases do).

    NUMBER is of Documentation/admin-guide/devices.txt.
    """
    there = driver(module)
    try:
        if os.stat(path).st_rdev != os.makedev(*number):
            return Device(path, there, WRONG_NODE)
        if there == LOADED:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        elif not os.access(path, os.R_OK | os.W_OK):
            return Device(path, there, errno.EACCES)
    except OSError as error:
        return Device(path, there, error.errno or errno.EIO)
    return Device(path, there)
