"""PCI devices and VFIO, by sysfs and /dev/vfio.

What is where: Documentation/ABI/testing/sysfs-bus-pci, Documentation/driver-api/vfio.rst.
"""

from __future__ import annotations

import errno
import os

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, holders, polling, waits
from qemu_netwrap.linux.child import Child
from qemu_netwrap.model.pci import VFIO, Device

SYS = "/sys"
DEV = "/dev/vfio"
INTERRUPTS = "/proc/interrupts"
MOUNTS = "/proc/self/mountinfo"
SWAPS = "/proc/swaps"
DRIVER_TIMEOUT = 120.0  # seconds for a driver to release a device, or to bind it
_RELEASE_TIMEOUT = 20.0  # seconds for an ending process to close its IOMMU group
_MODULES = {VFIO: "vfio-pci"}


def device_folder(bdf: str) -> str:
    """Return a device's folder in sysfs."""
    return f"{SYS}/bus/pci/devices/{bdf}"


def look(bdf: str) -> Device | None:
    """Return what sysfs says about a device; None if there is none."""
    folder = device_folder(bdf)
    if not os.path.exists(folder):
        return None
    total = _read(f"{folder}/sriov_totalvfs")
    count = len([name for name in files.listdir(folder) if name.startswith("virtfn")])
    return Device(
        bdf,
        _read(f"{folder}/class").removeprefix("0x"),
        ":".join(_read(f"{folder}/{name}").removeprefix("0x") for name in ("vendor", "device")),
        _link(f"{folder}/driver"),
        override(bdf),
        _link(f"{folder}/iommu_group"),
        ifnames(bdf),
        _link(f"{folder}/physfn"),
        int(total) if total else 0,
        tuple(_link(f"{folder}/virtfn{number}") for number in range(count)),
    )


def all_devices() -> list[Device]:
    """Return every device."""
    found = (look(bdf) for bdf in files.listdir(f"{SYS}/bus/pci/devices"))
    return [device for device in found if device is not None]


def members(group: str) -> list[Device]:
    """Return the devices of an IOMMU group."""
    found = (look(bdf) for bdf in files.listdir(f"{SYS}/kernel/iommu_groups/{group}/devices"))
    return [device for device in found if device is not None]


def has_iommu() -> bool:
    """Whether the kernel has put any device into an IOMMU group."""
    return bool(files.listdir(f"{SYS}/kernel/iommu_groups"))


def remaps_interrupts() -> bool:
    """Whether interrupts are remapped, or VFIO may do without; yes if that is not known.

    Otherwise VFIO's type1 refuses every device (`vfio_iommu_type1_attach_group`). On x86 the names
    of remapped interrupts begin with IR- (the irq_chips of drivers/iommu/intel/irq_remapping.c and
    amd/iommu.c).
    """
    if _read(f"{SYS}/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts") == "Y":
        return True
    iommus = files.listdir(f"{SYS}/class/iommu")
    x86 = any(name.startswith(("dmar", "ivhd")) for name in iommus)
    return not x86 or " IR-" in files.read(INTERRUPTS)


def by_ifname(ifname: str) -> str:
    """Return the BDF of the device that a network interface belongs to; empty if none."""
    path = os.path.realpath(f"{SYS}/class/net/{ifname}/device")
    while len(path) > len(SYS):
        if os.path.basename(os.path.realpath(f"{path}/subsystem")) == "pci":
            return os.path.basename(path)
        path = os.path.dirname(path)  # virtio has a device of its own in between
    return ""


def by_path(path: str) -> str:
    """Return the BDF of the PCI device that a path in sysfs leads to; empty if none."""
    name = os.path.basename(os.path.realpath(path))
    return name if os.path.exists(device_folder(name)) else ""


def ifnames(bdf: str) -> tuple[str, ...]:
    """Return a device's network interfaces, also those of a virtio device behind it."""
    folder = device_folder(bdf)
    inner = [name for name in files.listdir(folder) if name.startswith("virtio")]
    places = (folder, *(f"{folder}/{name}" for name in inner))
    return tuple(name for place in places for name in files.listdir(f"{place}/net"))


def driver(bdf: str) -> str:
    """Return a device's driver; empty without one."""
    return _link(f"{device_folder(bdf)}/driver")


def override(bdf: str) -> str:
    """Return a device's driver_override; empty without one."""
    found = _read(f"{device_folder(bdf)}/driver_override")
    return "" if found == "(null)" else found


def set_override(bdf: str, name: str) -> None:
    """Set the only driver that may bind a device; any that supports it, if NAME is empty."""
    _write(f"{device_folder(bdf)}/driver_override", f"{name}\n")


def unbind(bdf: str) -> None:
    """Unbind a device from its driver, if it has one. Raises `HostError`."""
    if driver(bdf):
        _write_in_child(f"{device_folder(bdf)}/driver/unbind", bdf)


def bind(bdf: str, name: str) -> None:
    """Bind a device without a driver to a driver. Raises `HostError` if that fails.

    By driver_override and drivers_probe, which unlike `new_id` affect no other device.
    """
    load(name)
    set_override(bdf, name)
    _write_in_child(f"{SYS}/bus/pci/drivers_probe", bdf)
    now = driver(bdf)
    if now != name:
        raise HostError(
            f"{bdf}: driver {name} did not take it" + (f"; {now} has it" if now else ""),
            "the kernel's log says more: dmesg",
        )


def load(name: str) -> None:
    """Load a driver's module, unless the driver exists. Raises `HostError`."""
    if os.path.exists(f"{SYS}/bus/pci/drivers/{name}"):
        return
    try:
        Child(("modprobe", "--", _MODULES.get(name, name))).wait()
    except HostError as error:
        raise HostError(
            f"driver {name} is not there: {error.message}",
            "is it in this kernel? VFIO is CONFIG_VFIO_PCI" if name == VFIO else error.hint,
        ) from error


def set_vf_count(pf: str, count: int) -> None:
    """Create COUNT virtual functions, or remove them all with 0. Raises `HostError`.

    New ones stay without a driver. Removing waits, in the kernel and without a limit, for a process
    that has one of them open: check first.
    """
    before = autoprobe(pf)
    if count:
        set_autoprobe(pf, "0")
    try:
        _write_in_child(f"{device_folder(pf)}/sriov_numvfs", str(count))
    except OSError as error:
        raise count_refused(pf, count, error) from error
    finally:
        set_autoprobe(pf, before)


def autoprobe(pf: str) -> str:
    """Return whether the host's drivers bind new virtual functions: `1` or `0`."""
    return _read(f"{device_folder(pf)}/sriov_drivers_autoprobe")


def set_autoprobe(pf: str, value: str) -> None:
    """Set whether the host's drivers bind new VFs; before Linux 4.12 they always do."""
    if autoprobe(pf) not in ("", value):
        _write(f"{device_folder(pf)}/sriov_drivers_autoprobe", value)


COUNT_REFUSALS = {
    errno.EBUSY: (
        "there are virtual functions already, and their number changes by way of 0 only",
        "use those that are there, or remove them: echo 0 > sriov_numvfs",
    ),
    errno.ENOSPC: (
        "the firmware has left too little room of bus numbers or memory",
        "enable SR-IOV in the firmware's setup; kernel parameter: pci=realloc",
    ),
    errno.ERANGE: ("the device has not that many", "sriov_totalvfs says how many it has"),
    errno.ENOENT: ("its driver makes none", "load the vendor's driver for it"),
    errno.EIO: ("the device refuses", "the kernel's log says more: dmesg"),
}


def count_refused(pf: str, count: int, error: OSError) -> HostError:
    """Return the error for the kernel's refusal to create COUNT virtual functions."""
    why, hint = COUNT_REFUSALS.get(
        error.errno or 0, (error.strerror or str(error), "the kernel's log says more: dmesg")
    )
    return HostError(f"{pf}: {count} virtual functions cannot be made: {why}", hint)


def group_node(group: str) -> str:
    """Return the device node of an IOMMU group."""
    return f"{DEV}/{group}"


def is_group_open(group: str) -> bool:
    """Whether a process has an IOMMU group open: the kernel allows only one at a time.

    Unlike a search of /proc this also finds a process that is ending.
    """
    try:
        os.close(os.open(group_node(group), os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def wait_group_closed(group: str) -> None:
    """Wait until no process has an IOMMU group open. Raises `HostError` on a time-out."""
    if not polling.wait_until(lambda: not (group and is_group_open(group)), _RELEASE_TIMEOUT):
        by = group_holder(group)
        raise HostError(
            f"IOMMU group {group} is still in use{f' by {by}' if by else ''}",
            "end that process, then run qemu-netwrap gc",
        )


def group_holder(group: str) -> str:
    """Return the process that has an IOMMU group open, as `PROGRAM (pid N)`; else empty."""
    having = holders.of_file(group_node(group))
    return holders.named(having[0]) if having else ""


def disk_in_use(bdf: str) -> tuple[str, str]:
    """Return how the host uses a disk of a device, and the remedy; two empty texts if not."""
    for name in _disks(bdf):
        users = files.listdir(f"{SYS}/class/block/{name}/holders")
        if users:
            return f"/dev/{name} is part of {', '.join(users)}", "take it out of that first"
        places = _mounted(name)
        if places:
            return f"/dev/{name} is mounted on {', '.join(places)}", "unmount it first"
        swaps = (line.split()[0] for line in files.read(SWAPS).splitlines()[1:])
        if any(os.path.basename(os.path.realpath(swap)) == name for swap in swaps):
            return f"/dev/{name} is swap space", f"stop that first: swapoff /dev/{name}"
    return "", ""


def _disks(bdf: str) -> list[str]:
    """Return the disks of a device, and their partitions.

    With NVMe multipath a disk is not below its device: nvme0c0n1 is a path to nvme0n1, which is
    below /sys/devices/virtual (drivers/nvme/host/multipath.c).
    """
    folder = os.path.realpath(device_folder(bdf)) + "/"
    places = {
        name: os.path.realpath(f"{SYS}/class/block/{name}")
        for name in files.listdir(f"{SYS}/class/block")
    }
    own = [name for name, place in places.items() if place.startswith(folder)]
    by_ways = {
        f"{name[: name.rindex('c')]}{name[name.rindex('n') :]}" for name in own if _is_way(name)
    }
    shared = [name for name, place in places.items() if by_ways & set(place.split("/"))]
    return sorted({*own, *shared})


def _is_way(name: str) -> bool:
    """Whether a name is that of an NVMe path, like nvme0c0n1."""
    _, found, rest = name.removeprefix("nvme").partition("c")
    return name.startswith("nvme") and bool(found) and "n" in rest


def _mounted(name: str) -> list[str]:
    """Return where a disk or partition is mounted (proc(5) on mountinfo).

    It is found by its number or its name: a btrfs has a device number of its own.
    """
    number = _read(f"{SYS}/class/block/{name}/dev")
    found = []
    for line in files.read(MOUNTS).splitlines():
        words = line.split(" ")
        source = words[words.index("-") + 2]
        if words[2] == number or source == f"/dev/{name}":
            found.append(words[4])
    return found


def _write(path: str, text: str) -> None:
    """Write to a file of sysfs, in one write(2). Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_in_child(path: str, text: str) -> None:
    """Write to sysfs in a child process with a time-out: some writes block beyond SIGKILL.

    Raises `OSError` as the write would, and `HostError` after `DRIVER_TIMEOUT`.
    """
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            # A reader of this process's output must not wait for a child that hangs.
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            _write(path, text)
        except OSError as error:
            status = error.errno or errno.EIO
        except BaseException:  # noqa: BLE001 - a forked child must not return
            status = errno.EIO
        os._exit(status)
    child = os.pidfd_open(pid)
    ended = waits.readable(child, DRIVER_TIMEOUT)
    os.close(child)
    if not ended:
        raise HostError(
            f"{path}: the kernel hangs over writing {text} there; given up",
            "a process may have the device open, or its driver is stuck: dmesg says more",
        )
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        number = code if code > 0 else errno.EIO
        raise OSError(number, os.strerror(number), path)


def _read(path: str) -> str:
    """Return the text of a file of sysfs; empty if it cannot be read."""
    try:
        return files.read(path).strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    """Return the file name that a link leads to; empty if there is no link."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""
