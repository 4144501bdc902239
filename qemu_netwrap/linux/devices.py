"""Device nodes and the drivers behind them. Examining them loads no driver."""

from __future__ import annotations

import errno
import os

from qemu_netwrap.linux import files
from qemu_netwrap.record import Record

TUN, VHOST = "/dev/net/tun", "/dev/vhost-net"
# The states of a driver: loaded or built in, loadable, not available.
LOADED, LOADABLE, MISSING = "loaded", "loadable", "missing"
WRONG_NODE = -1  # stands beside the errnos: what is there is another device, or none
# A function of each driver, by which one that is built in is recognised without a module list.
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

    Modules with parameters have a folder in /sys/module even if they are built in. The others are
    listed in modules.builtin; if that is missing, the kernel's symbols are searched.
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
    """Examine /dev/net/tun, which creates taps."""
    return look(TUN, "tun", (10, 200))


def vhost_net() -> Device:
    """Examine /dev/vhost-net, which vhost=on needs."""
    return look(VHOST, "vhost_net", (10, 238))


def look(path: str, module: str, number: tuple[int, int]) -> Device:
    """Examine a device node; it is opened only if that cannot load a driver (devname aliases).

    NUMBER is its major and minor number (Documentation/admin-guide/devices.txt).
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
