"""Checks whether a launch would fail on this host, without making anything: for `plan`.

The errors are the launch's own, from the functions that the launch itself calls.
"""

from __future__ import annotations

import errno
import os

from qemu_netwrap import state
from qemu_netwrap.linux import devices, host_facts, sysctl, tun
from qemu_netwrap.resources.links import taken
from qemu_netwrap.runtime import host_ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.linux.devices import Device
    from qemu_netwrap.model.run import TapRequest
    from qemu_netwrap.resources.base import Resource

_ANY_SETTING = "/proc/sys/net/ipv6/conf/{}/accept_ra"
_DENIED = (errno.EACCES, errno.EPERM)


def check(nics: tuple[TapRequest, ...], here: state.StateDir) -> None:
    """Raise the `HostError` that a launch with NICS would. An ordinary user is treated as root."""
    if not nics:
        return
    state.foresee()
    host_ports.check(nics, here)
    for name in host_facts.existing(tuple(nic.tap for nic in nics)):
        raise taken(name)
    refused = _refusal(devices.tun())
    if refused is not None:
        raise tun.no_tap(refused)
    refused = _refusal(devices.vhost_net()) if any(nic.vhost for nic in nics) else None
    if refused is not None:
        raise tun.no_vhost(refused)


def check_settings(resources: Iterable[Resource]) -> None:
    """Raise a `HostError` if settings (sysctls) that must be written are read-only."""
    device = next((each.must_set for each in resources if each.must_set), "")
    if device and os.statvfs("/proc/sys").f_flag & os.ST_RDONLY:
        error = OSError(errno.EROFS, os.strerror(errno.EROFS))
        raise sysctl.refusal(_ANY_SETTING.format(device), error)


def _refusal(device: Device) -> OSError | None:
    """Return the error of opening a device; None if it opens, or fails only for this user."""
    if not device.error or (os.geteuid() and device.error in _DENIED):
        return None
    # A file that is not the device rejects its ioctl with ENOTTY.
    number = errno.ENOTTY if device.error == devices.WRONG_NODE else device.error
    return OSError(number, os.strerror(number))
