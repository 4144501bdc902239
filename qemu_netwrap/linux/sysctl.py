"""Network sysctls, most of them of devices, as files of this process's network namespace."""

from __future__ import annotations

import os

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FAMILIES = ("ipv4", "ipv6")
# Settings that are not copied: the first follows the MTU, the second is a secret of the device, the
# last would be attributed to the process that sets it.
_OWN = frozenset({"mtu", "stable_secret", "mc_forwarding"})


def keys(family: str, device: str) -> list[str]:
    """Return the names of a device's settings; none if there is no such device."""
    return files.listdir(_path(family, device, ""))


def read(family: str, device: str, key: str) -> str:
    """Return a device's setting; empty if there is no such device or setting."""
    try:
        with open(_path(family, device, key), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(family: str, device: str, key: str, value: str) -> None:
    """Set a device's setting. Raises `HostError` if it does not exist, or the kernel refuses."""
    path = _path(family, device, key)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(value)
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: str, error: OSError) -> HostError:
    """Return the error for a setting that cannot be written."""
    return HostError(
        f"{path}: {error.strerror}", linux.remedies.remedy(error, "-v shows the step", path)
    )


def is_writable() -> bool:
    """Whether settings can be written: in most containers /proc/sys is read-only."""
    return os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK)


def open_from() -> int:
    """Return the lowest port that any local user can bind, of IPv4 and IPv6 (ip-sysctl.rst)."""
    return int(files.read("/proc/sys/net/ipv4/ip_unprivileged_port_start") or 1024)


def write_if_there(family: str, device: str, key: str, value: str) -> None:
    """Set a device's setting, if the device exists. Raises `HostError`."""
    try:
        write(family, device, key, value)
    except HostError:
        if keys(family, device):
            raise


def choices(device: str) -> Iterator[tuple[str, str, str]]:
    """Yield family, key and value of a device's settings that the host can choose."""
    for family in _FAMILIES:
        for key in keys(family, device):
            if key not in _OWN:
                yield family, key, read(family, device, key)


def give(family: str, device: str, key: str, value: str) -> None:
    """Set a device's setting if it exists, differs and is writable."""
    if value and read(family, device, key) not in ("", value):
        try:
            write(family, device, key, value)
        except HostError:
            pass


def _path(family: str, device: str, key: str) -> str:
    """Return the path of a setting's file."""
    return f"/proc/sys/net/{family}/conf/{device}/{key}"
