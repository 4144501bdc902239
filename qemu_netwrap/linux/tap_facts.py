"""Facts about taps, helpers and scripts that QEMU sets up itself."""

from __future__ import annotations

import errno
import os
import stat

from qemu_netwrap import linux
from qemu_netwrap.errors import ConfigError
from qemu_netwrap.linux import bridge_conf, devices, files, proc, qemu_files
from qemu_netwrap.linux.holders import holder_of_tap
from qemu_netwrap.model.names import ifname_fault
from qemu_netwrap.qemu import bridge_conf as bridge_acl

NETS = "/sys/class/net"
HELPER = "qemu-bridge-helper"
# Where distributions install QEMU's helpers (CONFIG_QEMU_HELPERDIR).
_HELPER_FOLDERS = ("/usr/lib/qemu", "/usr/libexec", "/usr/local/libexec", "/usr/libexec/qemu")


def interface(name: str) -> dict[str, object]:
    """Return the facts about an interface, as fields of `TapFacts`; none if it does not exist."""
    folder = f"{NETS}/{name}"
    if ifname_fault(name) or not os.path.isdir(folder):
        return {}
    flags, owner = (files.peek(f"{folder}/{key}").strip() for key in ("tun_flags", "owner"))
    return {
        "is_there": True,
        "tun_flags": int(flags, 16) if flags else None,
        "owner": int(owner) if owner else -1,
        "is_macvtap": any(entry.startswith("tap") for entry in files.listdir(folder)),
        "holder": holder_of_tap(name),
    }


def default_helper(program: str) -> str:
    """Return the bridge helper that a QEMU was built to call; empty if it does not exist."""
    paths = (f"{folder}/{HELPER}" for folder in _HELPER_FOLDERS)
    found = (path for path in paths if os.path.exists(path))
    return next((path for path in found if qemu_files.is_in(program, path)), "")


def helper(path: str, bridge: str, uid: int) -> dict[str, object]:
    """Return the facts about QEMU's bridge helper for the user UID; none for other programs."""
    if os.path.basename(path) != HELPER or not os.path.exists(path):
        return {}
    found = os.stat(path)
    may = uid == 0 or (found.st_uid == 0 and bool(found.st_mode & stat.S_ISUID))
    return {
        "helper": path,
        "helper_may": may or _has_capabilities(path),
        "acl": _acl(bridge),
        "bridge": "" if os.path.isdir(f"{NETS}/{bridge}/bridge") else bridge,
    }


def missing(scripts: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the scripts that are missing or cannot be executed."""
    return tuple(script for script in scripts if not os.access(script, os.X_OK))


def why_no_tun() -> str:
    """Return why taps cannot be opened, with the remedy; empty if they can."""
    return _why_not(devices.TUN)


def why_no_vhost() -> str:
    """Return why vhost=on is not possible, with the remedy; empty if it is."""
    return _why_not(devices.VHOST)


def _why_not(path: str) -> str:
    """Return why a device cannot be opened, with the remedy. It is not opened for that."""
    if os.access(path, os.R_OK | os.W_OK):
        return ""
    number = errno.EACCES if os.path.exists(path) else errno.ENOENT
    return str(linux.remedies.cause(number, path, linux.remedies.standing()))


def has_net_admin() -> bool:
    """Whether this process has CAP_NET_ADMIN."""
    return "net_admin" in proc.capabilities()


def has_no_new_privileges() -> bool:
    """Whether setuid has no effect on programs of this process (no_new_privs)."""
    return proc.status("self", "NoNewPrivs") == ["1"]


def _acl(bridge: str) -> str:
    """Return why the helper's rules refuse BRIDGE, with the remedy; empty if they do not."""
    path = bridge_conf.PATH
    mend = f"echo 'allow {bridge}' | sudo tee -a {path}"
    if not os.path.exists(path):
        return f"{path} is missing: {mend}"
    if not os.access(path, os.R_OK):
        return ""  # the helper is setuid, and sees what this user does not
    try:
        verdict = bridge_acl.verdict(bridge_conf.load(bridge), bridge)
    except ConfigError as error:
        return error.message
    if verdict == bridge_acl.DENY:
        return f"{path} denies {bridge}"
    return "" if verdict else f"{path} does not allow {bridge}: {mend}"


def _has_capabilities(path: str) -> bool:
    """Whether a program has file capabilities (capabilities(7))."""
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
