"""Network sysctls, by their files: those of the network namespace this process is in."""

from __future__ import annotations

from qemu_netwrap.core.errors import HostError
from qemu_netwrap.host import files


def keys(family: str, device: str) -> list[str]:
    """Return the names of a device's settings; none when it is not there."""
    return files.listdir(_path(family, device, ""))


def read(family: str, device: str, key: str) -> str:
    """Return a device's setting; empty when the device, or the setting, is not there."""
    try:
        with open(_path(family, device, key), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(family: str, device: str, key: str, value: str) -> None:
    """Set a device's setting. Raises `HostError` when the kernel refuses, or it is not there."""
    path = _path(family, device, key)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(value)
    except OSError as error:
        raise HostError(
            f"{path}: {error.strerror}", "is /proc/sys writable here? Containers often forbid it"
        ) from error


def _path(family: str, device: str, key: str) -> str:
    """Return the setting's file. The kernel makes a dot of a slash in names, and back."""
    return f"/proc/sys/net/{family}/conf/{device}/{key}"
