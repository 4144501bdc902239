"""What a launch would be refused by this host, asked without making anything: for `plan`.

The answers are the launch's own errors, from the functions that the launch has them from.
"""

from __future__ import annotations

import errno
import os

from qemu_netwrap.core.errors import HostError
from qemu_netwrap.core.resources import Uplink
from qemu_netwrap.core.survey import WRONG_NODE
from qemu_netwrap.host import probe, survey, sysctl, tun
from qemu_netwrap.host.remedies import remedy
from qemu_netwrap.life import effects, forwards, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.core.model import Nic
    from qemu_netwrap.core.resources import Resource
    from qemu_netwrap.core.survey import Device

_ANY_SETTING = "/proc/sys/net/ipv6/conf/{}/accept_ra"
_DENIED = ("EACCES", "EPERM")


def check(nics: tuple[Nic, ...], here: state.State) -> None:
    """Raise the `HostError` that a launch with NICS would. A user's privilege is not looked at."""
    if not nics:
        return
    state.foresee()
    forwards.check(nics, here)
    _check_privilege()
    for name in probe.existing(tuple(nic.tap for nic in nics)):
        raise effects.taken(name)
    refused = _refusal(survey.tun())
    if refused is not None:
        raise tun.no_tap(refused)
    refused = _refusal(survey.vhost_net()) if any(nic.vhost for nic in nics) else None
    if refused is not None:
        raise tun.no_vhost(refused)


def check_settings(resources: Iterable[Resource]) -> None:
    """Raise the `HostError` of settings that must be written, and cannot be."""
    bridge = next((each.bridge for each in resources if isinstance(each, Uplink)), "")
    if bridge and os.statvfs("/proc/sys").f_flag & os.ST_RDONLY:
        error = OSError(errno.EROFS, os.strerror(errno.EROFS))
        raise sysctl.refusal(_ANY_SETTING.format(bridge), error)


def _check_privilege() -> None:
    """Raise a `HostError` for a root that lacks what networks take; others plan for root."""
    if os.geteuid() == 0 and "net_admin" in survey.standing().lacking:
        error = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        raise HostError(f"taps and bridges: {error.strerror}", remedy(error, ""))


def _refusal(device: Device) -> OSError | None:
    """Return how opening a device fails; None when it does not, or only for this user."""
    if not device.error or (os.geteuid() and device.error in _DENIED):
        return None
    numbers = {code: number for number, code in errno.errorcode.items()}
    # What is no such device refuses its ioctl.
    wrong = device.error == WRONG_NODE
    number = errno.ENOTTY if wrong else numbers.get(device.error, errno.EIO)
    return OSError(number, os.strerror(number))
