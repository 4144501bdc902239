"""PCI devices: the format of their addresses, their sysfs attributes, and IOMMU groups."""

from __future__ import annotations

from qemu_netwrap.record import Record

VFIO = "vfio-pci"
# Drivers that allow VFIO to manage a group's DMA (`driver_managed_dma` in the kernel's struct
# pci_driver), and those of VFIO itself, which may be variants: mlx5_vfio_pci.
_HARMLESS = ("pcieport", "pci-stub", "pci_stub")
# Base classes, and common subclasses (include/linux/pci_ids.h).
_KINDS = {
    "01": "storage controller", "02": "network controller", "03": "display controller",
    "04": "multimedia device", "05": "memory controller", "06": "bridge",
    "07": "communication controller", "08": "system peripheral", "0c": "serial bus controller",
    "0106": "SATA controller", "0108": "NVMe controller", "0200": "Ethernet controller",
    "0280": "wireless controller", "0300": "VGA controller", "0403": "audio device",
    "0600": "host bridge", "0601": "ISA bridge", "0604": "PCI bridge", "0c03": "USB controller",
}  # fmt: skip


class Device(Record):
    """A device as sysfs describes it."""

    bdf: str  # domain:bus:device.function
    kind: str  # its class: six hexadecimal digits
    ids: str  # vendor:device
    driver: str = ""
    override: str = ""  # its driver_override
    group: str = ""  # its IOMMU group; empty without an IOMMU
    ifnames: tuple[str, ...] = ()  # its network interfaces, in this network namespace
    pf: str = ""  # of a VF: the address of its PF
    total_vfs: int = 0  # of a PF: how many VFs it supports
    vfs: tuple[str, ...] = ()  # addresses of its VFs, VF 0 first

    @property
    def what(self) -> str:
        """Its class in words."""
        return _KINDS.get(self.kind[:4]) or _KINDS.get(self.kind[:2]) or f"class {self.kind}"

    @property
    def is_nic(self) -> bool:
        """Whether it is a network controller."""
        return self.kind.startswith("02")

    @property
    def is_bridge(self) -> bool:
        """Whether it is a PCI bridge: it may be in a group, but is never passed through."""
        return self.kind.startswith("0604")

    @property
    def is_on_vfio(self) -> bool:
        """Whether it is bound to a VFIO driver."""
        return "vfio" in self.driver

    @property
    def is_in_the_way(self) -> bool:
        """Whether its driver prevents its group from being passed through."""
        if not self.driver or self.is_bridge or self.is_on_vfio:
            return False
        return self.driver not in _HARMLESS

    def __str__(self) -> str:
        """Return a description: `0000:02:00.1 (Ethernet controller, driver e1000e, eth2)`."""
        driver = f"driver {self.driver}" if self.driver else "no driver"
        return f"{self.bdf} ({', '.join((self.what, driver, *self.ifnames))})"


def parse(text: str) -> str:
    """Return an address as sysfs writes it: `1:0.0` is 0000:01:00.0.

    As QEMU reads it (hw/core/qdev-properties-system.c, `set_pci_host_devaddr`): numbers are
    hexadecimal, the function decimal. Raises `ValueError`.
    """
    place, dot, function = text.rpartition(".")
    parts = place.split(":")
    if dot and len(parts) in (2, 3) and function.isascii() and function.isdigit():
        domain, bus, slot = (_hex(part) for part in ("0", *parts)[-3:])
        if domain <= 0xFFFFFFFF and bus <= 0xFF and slot <= 0x1F and int(function) <= 7:
            return f"{domain:04x}:{bus:02x}:{slot:02x}.{int(function)}"
    raise ValueError("expected a PCI address like 0000:01:00.0")


def _hex(text: str) -> int:
    """Return a hexadecimal number; one above every limit if TEXT is invalid."""
    digits = set(text.lower().removeprefix("0x")) <= set("0123456789abcdef")
    return int(text, 16) if digits and text.lower() not in ("", "0x") else 1 << 64
