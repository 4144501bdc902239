"""Which devices a command line passes through, whether that is possible, and what it needs.

Pure: facts from sysfs come in as `model.pci` records.
"""

from __future__ import annotations

from qemu_netwrap.errors import HostError, UsageError
from qemu_netwrap.model import mac, numbers, pci
from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.qemu.netdev_options import SRIOV
from qemu_netwrap.qemu.option_groups import read_list
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qemu_netwrap.qemu.netdev_options import NetOption
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.qemu.option_groups import Entry
    from qemu_netwrap.qemu.rewrite import Rewritten

DRIVERS = ("vfio-pci", "vfio-pci-nohotplug")
_IOMMUS = ("intel-iommu", "amd-iommu", "virtio-iommu", "virtio-iommu-pci", "arm-smmuv3")
_DEFAULT_RAM = 128 << 20  # bytes, hw/core/machine.c
_MARGIN = 1 << 30  # bytes: what libvirt allows in addition to the RAM
_NO_NIC = ("-nic", "none")
_MIB = 20  # the shift of the default unit of -m
_SUFFIXES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


class HostDevice(Record):
    """A device of the host in the command line: given by its address, or one of a PF's VFs."""

    label: str  # its name in messages
    entry: Entry  # its -device or -nic
    host: str = ""  # its address, also by `sysfsdev=` once that is resolved
    path: str = ""  # sysfsdev=
    net: NetOption | None = None  # a `sriov`
    mac: str = ""  # as the user typed it; else empty

    @property
    def pf(self) -> str:
        """The physical function's interface, for a `sriov`."""
        return self.net.value("pf") if self.net is not None else ""


def find(reading: NetworkOptions) -> tuple[HostDevice, ...]:
    """Return the host's devices that READING wants, in the order typed.

    Raises `UsageError` for a `sriov` without a device. An invalid address is left to QEMU, which
    refuses it.
    """
    nets = [net for net in reading.netdevs if net.type == SRIOV]
    found = list(_devices(reading, {net.id: net for net in nets if net.form == "netdev"}))
    for net in nets:
        if net.form == "nic":
            label = net.id or net.option.typed
            found.append(HostDevice(label, net, "", "", net, _mac(reading, net)))
        elif not any(device.net is net for device in found):
            raise UsageError(
                f"{net.option.typed}: no device is on it",
                f"add -device vfio-pci,netdev={net.id}; or write it as -nic sriov,pf=...",
            )
    for device in found:
        for option in (device.entry.option, device.net.option) if device.net is not None else ():
            if option.number is not None:
                raise UsageError(
                    f"{option.typed}: sriov cannot stand in a file", "write it as an option of QEMU"
                )
    return tuple(sorted(found, key=lambda device: device.entry.option.at))


def _devices(reading: NetworkOptions, nets: Mapping[str, NetOption]) -> Iterator[HostDevice]:
    """Yield the -device options of VFIO: with an address, or on a `sriov` netdev."""
    for entry in reading.groups.of("device"):
        if entry.opts.get("driver") not in DRIVERS:
            continue
        label = entry.id or entry.option.typed
        net = nets.get(entry.opts.get("netdev") or "")
        path = entry.opts.get("sysfsdev") or ""
        if net is not None:
            yield HostDevice(label, entry, "", "", net, _mac(reading, net) or _own_mac(net))
        elif path:
            yield HostDevice(label, entry, "", path)
        else:
            try:
                yield HostDevice(label, entry, pci.parse(entry.opts.get("host") or ""))
            except ValueError:
                continue


def _own_mac(net: NetOption) -> str:
    """Return the MAC of a `sriov` netdev (`mac=`); empty if none. Raises `UsageError`."""
    try:
        return mac.parse(net.value("mac")) if net.value("mac") else ""
    except ValueError as error:
        raise UsageError(
            f"{net.option.typed}: mac={net.value('mac')}: {error}", "as in 52:54:00:12:34:56"
        ) from None


def _mac(reading: NetworkOptions, net: NetOption) -> str:
    """Return the MAC of the guest's NIC on a netdev; empty if the user gave none."""
    return next((nic.mac for nic in reading.nics_on(net)), "")


def replace_options(
    rewritten: Rewritten, wanted: tuple[HostDevice, ...], chosen: tuple[str, ...]
) -> Rewritten:
    """Return QEMU's options with VFs in the place of `sriov`; CHOSEN are WANTED's addresses.

    A -nic becomes a -device, the device on a -netdev gets the address. `-nic none` keeps QEMU from
    adding its default NIC.
    """
    instead: dict[int, tuple[str, ...]] = dict(rewritten.instead)
    without = set(rewritten.without)
    for device, bdf in zip(wanted, chosen, strict=True):
        if device.net is None:
            continue
        without.update(option.at for option in (*device.net.settings, *device.entry.settings))
        if device.net.form == "nic":
            tail = f",id={device.net.id}" if device.net.id else ""
            words: tuple[str, ...] = ("-device", f"{pci.VFIO},host={bdf}{tail}", *_NO_NIC)
        else:
            opts = device.entry.opts.without("netdev", "mac").with_added(("host", bdf))
            words = ("-device", opts.render())
            instead[device.net.option.at] = _NO_NIC
        instead[device.entry.option.at] = words
    return rewritten.replace(instead=instead, without=frozenset(without))


def check_host(*, has_iommu: bool, remaps_interrupts: bool) -> None:
    """Raise `HostError` with a remedy if this host cannot pass devices through."""
    if not has_iommu:
        raise HostError(
            "no device can be passed through: the kernel uses no IOMMU",
            "switch on VT-d or AMD-Vi in the firmware's setup, and boot with the kernel parameter"
            " intel_iommu=on (AMD's is on by itself)",
        )
    if not remaps_interrupts:
        raise HostError(
            "no device can be passed through: interrupts are not remapped, so a guest could have"
            " its device send the host any of them",
            "switch on interrupt remapping (x2APIC) in the firmware's setup; or, if you trust the"
            " guests: modprobe vfio_iommu_type1; echo Y"
            " >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        )


class Use(Record):
    """What a device of the host is used for."""

    holder: str = ""  # the process that has its IOMMU group open, as messages name it
    ifnames: frozenset[str] = frozenset()  # its interfaces, and those above them
    dependents: tuple[str, ...] = ()  # interfaces that are removed with it

    def carried(self, reached_by: Mapping[str, str]) -> str:
        """Return what one of the interfaces carries by REACHED_BY; empty if none is in it."""
        return next((reached_by[name] for name in sorted(self.ifnames & reached_by.keys())), "")


def check_device(label: str, device: pci.Device, use: Use, reached_by: Mapping[str, str]) -> None:
    """Raise `HostError` if a device is in use, or the host is reached by it."""
    if use.holder:
        raise HostError(f"{label}: {device} is in use by {use.holder}", "end that process first")
    if device.is_bridge:
        raise HostError(
            f"{label}: {device} cannot be passed through", "name a device behind it instead"
        )
    if device.vfs and not device.is_on_vfio:
        raise HostError(
            f"{label}: {device} has virtual functions, which would go with it",
            f"pass one of those through (-nic sriov,pf=...), or remove them first:"
            f" echo 0 > /sys/bus/pci/devices/{device.bdf}/sriov_numvfs",
        )
    carried = use.carried(reached_by)
    if carried:
        raise HostError(
            f"{label}: {device} carries {carried}",
            "the host would be out of reach; if you mean it: qemu-netwrap --force-uplink ...",
        )
    if use.dependents:
        raise HostError(
            f"{label}: {device} carries {', '.join(use.dependents)}, which would be gone for good",
            f"remove it first: ip link del {use.dependents[0]}",
        )


def siblings(
    label: str,
    device: pci.Device,
    members: list[pci.Device],
    passed: set[str],
    *,
    bind_group: bool,
) -> tuple[pci.Device, ...]:
    """Return the other members of a device's group that must leave their drivers for it.

    PASSED are the addresses that are passed through too. Raises `HostError` if there are such
    members and BIND_GROUP is false: a group is the smallest unit that an IOMMU can isolate.
    """
    if not device.group:
        raise HostError(
            f"{label}: {device} is in no IOMMU group",
            "it is behind no IOMMU; another slot may help",
        )
    others = [m for m in members if m.bdf not in passed and m.is_in_the_way]
    if others and not bind_group:
        raise HostError(
            f"{label}: IOMMU group {device.group} is not viable: {device.bdf} shares it with"
            f" {'; '.join(map(str, others))}",
            "--bind-group takes these from their drivers too, and gives them back; a slot with"
            " ACS has a group of its own",
        )
    return tuple(others)


def memory_to_lock(reading: NetworkOptions, devices: int) -> int:
    """Return how many bytes of memory QEMU has to lock for that many devices.

    VFIO locks the whole RAM of the guest, once; with a virtual IOMMU once for each device, which
    then has an address space of its own.
    """
    drivers = (entry.opts.get("driver") for entry in reading.groups.of("device"))
    has_iommu = any(driver in _IOMMUS for driver in drivers) or any(
        "iommu=" in (option.value or "") for option in reading.line.named("M", "machine")
    )
    size = max(_sizes(reading), default=0) or _DEFAULT_RAM
    return size * (devices if has_iommu else 1) + _MARGIN


def _sizes(reading: NetworkOptions) -> Iterator[int]:
    """Yield the sizes of the guest's RAM in the command line and its files, in bytes."""
    line = reading.line
    memory = [OptList.parse(option.value or "", "size") for option in line.named("m")]
    for file in reading.files.values():
        memory += [section.opts for section in file.sections if section.group == "memory"]
    for opts in memory:
        yield from (_bytes(opts.get(key) or "", _MIB) for key in ("size", "maxmem"))
    backends = {""}
    for option in line.named("M", "machine"):
        opts = OptList.parse(option.value or "", "type")
        yield from (_bytes(opts.get(f"memory.{key}") or "", 0) for key in ("size", "max-size"))
        backends.add(opts.get("memory-backend") or "")
    for option in line.named("object"):
        backend = read_list(option.value or "", "qom-type")
        if backend is not None and (backend.get("id") or "") in backends - {""}:
            yield _bytes(str(backend.get("size") or ""), 0)


def _bytes(text: str, shift: int) -> int:
    """Return a size in bytes; 0 if TEXT is none. SHIFT is that of a number without a suffix."""
    if not numbers.is_size(text):
        return 0
    suffix = text[-1].lower()
    is_hex = text.lower().startswith("0x")
    plain = text[:-1] if suffix in _SUFFIXES and not is_hex else text
    shift = shift if is_hex else _SUFFIXES.get(suffix, shift)
    try:
        return int(plain, 16) << shift if is_hex else int(float(plain) * (1 << shift))
    except ValueError:
        return 0
