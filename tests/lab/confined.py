"""What stands in the way of a user's own namespaces on some machines, and what a container lacks.

`limited`, `filtered`, `without_mounts` and `contained` return words that root runs before what they
are for: `before` of lab.user.User.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lab.netns import Host

_ALL_IDS: Final = "0 0 4294967295\n"

_READ_ONLY: Final = r"""
set -eu
mountpoint -q "$1" || mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
"""

_WORDS: Final = r"""
import ctypes, errno, os, struct, sys
LOAD, AND, EQUAL, GIVE = 0x20, 0x54, 0x15, 0x06
ALLOW, ERRNO, NEWUSER = 0x7FFF0000, 0x00050000, 0x10000000
"""
_LOADER: Final = r"""
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in program))
head = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, head):
    sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
"""

# Docker's default profile: CLONE_NEWUSER is refused to unshare and clone, and clone3, whose flags
# a filter cannot see, is not there. The numbers are x86-64's; seccomp(2), bpf(4).
_FILTER: Final = f"""{_WORDS}
UNSHARE, CLONE, CLONE3 = 272, 56, 435
program = (
    (LOAD, 0, 0, 0),
    (EQUAL, 6, 0, CLONE3),
    (EQUAL, 1, 0, UNSHARE),
    (EQUAL, 0, 2, CLONE),
    (LOAD, 0, 0, 16),
    (AND, 0, 0, NEWUSER),
    (EQUAL, 2, 0, NEWUSER),
    (GIVE, 0, 0, ALLOW),
    (GIVE, 0, 0, ERRNO | errno.ENOSYS),
    (GIVE, 0, 0, ERRNO | errno.EPERM),
)
{_LOADER}"""

# mount(2) is not allowed. The number is x86-64's.
_NO_MOUNTS: Final = f"""{_WORDS}
MOUNT = 165
program = (
    (LOAD, 0, 0, 0),
    (EQUAL, 0, 1, MOUNT),
    (GIVE, 0, 0, ERRNO | errno.EACCES),
    (GIVE, 0, 0, ALLOW),
)
{_LOADER}"""

# What docker leaves root of its capabilities.
_CONTAINED: Final = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap",
)  # fmt: skip

# What docker covers of /proc, so that it cannot be mounted anew in a user namespace.
_MASKED: Final = r"""
set -eu
for file in kcore keys timer_list; do
    [ ! -e "/proc/$file" ] || mount --bind /dev/null "/proc/$file"
done
for folder in acpi scsi; do
    [ ! -d "/proc/$folder" ] || mount -t tmpfs -o ro masked "/proc/$folder"
done
for folder in bus fs irq sys; do
    mount --bind "/proc/$folder" "/proc/$folder"
    mount -o remount,bind,ro "/proc/$folder"
done
if unshare --user --map-root-user --pid --fork --mount-proc true; then exit 1; fi
"""

# A settings folder with one more file, which only other kernels have.
_SETTING: Final = r"""
set -eu
cd /proc/sys/kernel
mount -t tmpfs -o mode=755 settings /mnt
mkdir /mnt/random
for file in * random/*; do
    [ ! -f "$file" ] || cat "$file" >"/mnt/$file" 2>/dev/null || rm "/mnt/$file"
done
echo "$2" >"/mnt/$1"
mount --move /mnt /proc/sys/kernel
"""


def read_only(host: Host, folder: str) -> None:
    """Make a folder such as /run or /proc/sys read-only on `host`; what is mounted in it is not."""
    host.run("sh", "-c", _READ_ONLY, "seal", folder)


def limited(host: Host) -> tuple[str, ...]:
    """Return words that put what follows where user.max_user_namespaces is 0: ENOSPC.

    That is another user namespace, for the sysctl is one's own; all ids are in it as they are.
    """
    hold = ("unshare", "--user", "sh", "-c", "echo made; exec sleep infinity")
    holder = host.popen(*hold, stdout=subprocess.PIPE)
    if holder.stdout is None or holder.stdout.readline() != "made\n":
        message = f"no user namespace on {host.name}"
        raise RuntimeError(message)
    for kind in ("uid", "gid"):
        Path(f"/proc/{holder.pid}/{kind}_map").write_text(_ALL_IDS, encoding="ascii")
    enter = ("nsenter", "-t", str(holder.pid), "--user", "--")
    host.run(*enter, "sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces")
    return enter


def filtered() -> tuple[str, ...]:
    """Return words that put what follows under Docker's filter of system calls: EPERM.

    So it is too where kernel.unprivileged_userns_clone, which only Debian's kernels have, is 0.
    """
    return (sys.executable, "-I", "-c", _FILTER)


def without_mounts() -> tuple[str, ...]:
    """Return words that put what follows where nothing can be mounted: EACCES.

    So docker's AppArmor profile has it (`deny mount`), with every seccomp profile.
    """
    return (sys.executable, "-I", "-c", _NO_MOUNTS)


def contained(*, drop_all: bool = False) -> tuple[str, ...]:
    """Return words that leave root what a container of docker's has; with DROP_ALL nothing."""
    kept = "" if drop_all else "".join(f",+{name}" for name in _CONTAINED)
    return ("setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all", "--ambient-caps=-all", "--")


def masked(host: Host) -> None:
    """Cover of /proc what docker does, on HOST."""
    host.run("sh", "-c", _MASKED, "mask")


def setting(host: Host, name: str, value: str) -> None:
    """Give HOST the setting kernel.NAME, which its kernel does not have."""
    host.run("sh", "-c", _SETTING, "setting", name, value)
