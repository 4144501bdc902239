"""Why the host refuses something, and the command that helps: one table of causes and remedies.

Launches, `plan` and `doctor` look causes up by errno, path, and the privilege of the process.
"""

from __future__ import annotations

import errno
import os

from qemu_netwrap.linux import devices, files, proc
from qemu_netwrap.linux.devices import TUN, VHOST, WRONG_NODE
from qemu_netwrap.record import Record

RUN, SETTINGS = "/run", "/proc/sys"
# Causes that do not depend on the path.
_ANYWHERE = {
    errno.EMFILE: (
        "too many files are open",
        "raise the limit (ulimit -n), or ask for fewer ports, queues or NICs",
    ),
    errno.ENFILE: ("the host has too many files open", "see sysctl fs.file-nr, raise fs.file-max"),
    errno.ENOMEM: ("the host is short of memory", ""),
    errno.ENOBUFS: ("the host is short of memory for its network", ""),
    errno.EINVAL: ("the kernel refuses that value", "-v shows the step"),
}
_DENIED = (errno.EPERM, errno.EACCES)
_MODULES = {TUN: "tun", VHOST: "vhost_net"}
_START, _KINDS = "start the container ", "  # docker, podman"
_NODES = {TUN: "mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200"}


class Standing(Record):
    """The privilege of a process: root or not, missing `proc.CAPABILITIES`, and its container."""

    is_root: bool = True
    lacking: tuple[str, ...] = ()
    container: str = ""
    drivers: frozenset[str] = frozenset()  # modules that are loaded or built in


class Cause(Record):
    """Why something is refused, and the remedy: a command or a description."""

    why: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return both as a hint."""
        return f"{self.why}: {self.remedy}" if self.remedy else self.why


def remedy(error: OSError, otherwise: str, place: str = "") -> str:
    """Return the hint for an error at the path PLACE, or its own; OTHERWISE if none is known."""
    where = place or (error.filename if isinstance(error.filename, str) else "")
    found = cause(error.errno or 0, where or RUN, standing())
    return str(found) if found else otherwise


def cause(number: int, place: str, who: Standing) -> Cause | None:
    """Return the cause of errno NUMBER (or `WRONG_NODE`) at the path PLACE; None if unknown."""
    if place in _MODULES and number not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return _device(number, place, who)
    if number == errno.EROFS:
        return _read_only(place, who)
    if number in (errno.ENOSPC, errno.EDQUOT):
        where = RUN if _is_in(place, RUN) else "the file system"
        return Cause(f"{where} is full", f"make room there: df {RUN}; df -i {RUN}")
    if number in _DENIED:
        return _denied(who)
    found = _ANYWHERE.get(number)
    return Cause(*found) if found else None


def privilege(who: Standing) -> Cause | None:
    """Return which privilege is lacking, and the remedy; None if none is."""
    if not who.lacking:
        return None
    without = f"without {', '.join(f'CAP_{name.upper()}' for name in who.lacking)}"
    if not who.is_root:
        sudo = 'sudo qemu-netwrap --run-as "$USER" -- qemu-system-x86_64 ...'
        if "net_admin" in who.lacking:
            return Cause("this user is not root", f"{sudo}; -nic nat and host-only need no root")
        # It works on the host's networks, and may not do all that they need.
        own = "without CAP_NET_ADMIN too, this user's nat and host-only need no root"
        return Cause(f"not root, and {without}", f"{sudo}; {own}")
    found = f"root {without}"
    if who.container:
        return Cause(f"{found}, in {who.container}", in_container(_added(who.lacking)))
    return Cause(
        found,
        "start it from a shell, or a unit, whose bounding set has them:"
        " capsh --print; systemd.exec(5), CapabilityBoundingSet=",
    )


def _added(capabilities: tuple[str, ...]) -> str:
    """Return the options of docker and podman that give a container CAPABILITIES."""
    return " ".join(f"--cap-add {name.upper()}" for name in capabilities)


def in_container(what: str) -> str:
    """Return the remedy of starting the container with WHAT, options of docker and podman."""
    return f"{_START}with {what}{_KINDS}"


def standing() -> Standing:
    """Return the privilege of this process."""
    held = proc.capabilities()
    return Standing(
        os.geteuid() == 0,
        tuple(name for name in proc.CAPABILITIES if name not in held),
        container(),
        frozenset(name for name in ("tun", "vhost_net") if devices.driver(name) == devices.LOADED),
    )


def container() -> str:
    """Return the kind of this container, empty if it is none (systemd's CONTAINER_INTERFACE)."""
    told = files.peek("/run/systemd/container").strip() or os.environ.get("container", "")  # noqa: SIM112
    if told:
        return told
    marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
    return next((kind for path, kind in marks.items() if os.path.exists(path)), "")


# Settings that keep ordinary users from making user namespaces, with the value that does.
_APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
_USER_NAMESPACES = (
    ("kernel/unprivileged_userns_clone", "0", "1"),  # Debian's kernels
    (_APPARMOR, "1", "0"),  # Ubuntu's, from 23.10 on
    ("user/max_user_namespaces", "0", "15000"),  # user_namespaces(7)
)
# Ubuntu's way to exempt one program, which docs/rootless.md spells out.
_PROFILE = "  # or give it a profile with `userns,`: docs/rootless.md"


def user_namespace(who: Standing) -> Cause:
    """Return why a user may not make a user namespace, or has no capability in it.

    For root that is the second way: the first is the capabilities that it lacks.
    """
    for name, off, on in _USER_NAMESPACES:
        if files.peek(f"{SETTINGS}/{name}").strip() == off:
            found = _switched_off(name, off, on)
            break
    else:
        found = _forbidden(who)
    lacking = privilege(who) if who.is_root else None
    if lacking is None:
        return found
    why = f"{lacking.why}; and for networks of its own: {found.why}"
    if lacking.remedy.endswith(_KINDS) and found.remedy.startswith(_START):
        other = found.remedy.removeprefix(_START)
        return Cause(why, f"{lacking.remedy.removesuffix(_KINDS)}, or {other}")
    return Cause(why, f"{lacking.remedy}; or {found.remedy}")


def _switched_off(name: str, off: str, on: str) -> Cause:
    """Return the cause for a setting, its NAME a path, that is OFF and should be ON."""
    setting = name.replace("/", ".")
    is_apparmor = name == _APPARMOR
    why = f"AppArmor allows users no capability in one ({setting} is {off})"
    return Cause(
        why if is_apparmor else f"{setting} is {off}",
        f"sudo sysctl -w {setting}={on}{_PROFILE if is_apparmor else ''}",
    )


def _forbidden(who: Standing) -> Cause:
    """Return what may forbid user namespaces where no setting does."""
    if who.is_root and proc.MAPS_ROOT not in proc.capabilities():
        # Since Linux 5.12 root maps itself only with that (user_namespaces(7), file capabilities).
        why = "root without CAP_SETFCAP has no user namespace"
        return Cause(why, in_container("--cap-add SETFCAP") if who.container else "see: capsh")
    if who.container:
        why = "the container forbids user namespaces"
        return Cause(why, in_container("--security-opt seccomp=unconfined"))
    why = "a security module, or a unit's RestrictNamespaces=, may forbid user namespaces"
    return Cause(why, "see: dmesg | tail")


def _denied(who: Standing) -> Cause:
    lacking = privilege(who)
    if lacking is not None:
        return lacking
    found = "root has the capabilities, and something else forbids it"
    return Cause(found, "see a security module (dmesg), seccomp, or the container's rules")


def _read_only(place: str, who: Standing) -> Cause:
    if _is_in(place, SETTINGS):
        remedy = f"mount -o remount,rw {SETTINGS}"
        if who.container:
            remedy = in_container("--security-opt systempaths=unconfined")
        return Cause(f"{SETTINGS} is read-only", remedy)
    if _is_in(place, RUN):
        remedy = f"mount -o remount,rw {RUN}"
        if who.container:
            remedy = in_container(f"--tmpfs {RUN}")
        return Cause(f"{RUN} is read-only, and state is kept there", remedy)
    return Cause("the file system there is read-only", "mount -o remount,rw it")


def _device(number: int, path: str, who: Standing) -> Cause:
    """Return the cause at a device node: distinguishes missing node, driver and permission."""
    module = _MODULES[path]
    load = f"modprobe {module}"
    if who.container:
        load = f"{in_container(f'--device {path}')}; on its host: {load}"
    if number == errno.ENOENT:
        is_there = module in who.drivers and not who.container
        remedy = _NODES.get(path, load) if is_there else load
        return Cause("the node is missing", remedy)
    if number in (errno.ENODEV, errno.ENXIO):
        return Cause("the node is there, the driver is missing", f"modprobe {module}")
    if number in (WRONG_NODE, errno.ENOTTY, errno.ENOTDIR, errno.EISDIR):
        made = f"mknod -m 666 {path} c 10 {'200' if path == TUN else '238'}"
        return Cause(f"what is there is not the {module} device", f"rm {path} && {made}")
    if number == errno.EACCES:
        user = "root" if who.is_root and proc.maps_all_ids() else "this user"
        return Cause(f"{user} may not open it", f"sudo chmod 666 {path}")
    lacking = privilege(who) if number == errno.EPERM else None
    if lacking is not None and ("net_admin" in who.lacking):
        return lacking
    name = errno.errorcode.get(number, str(number))
    return Cause(f"it cannot be opened: {name}; containers forbid it by device rules", load)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
