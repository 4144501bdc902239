"""What stands in the way of an ordinary user's own namespaces on some machines.

`limited` and `filtered` return words that root runs before it becomes the user: they are for the
`before` of lab.user.User.
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

# Docker's default profile: CLONE_NEWUSER is refused to unshare and clone, and clone3, whose flags
# a filter cannot see, is not there. The numbers are x86-64's; seccomp(2), bpf(4).
_FILTER: Final = r"""
import ctypes, errno, os, struct, sys
LOAD, AND, EQUAL, GIVE = 0x20, 0x54, 0x15, 0x06
ALLOW, ERRNO, NEWUSER = 0x7FFF0000, 0x00050000, 0x10000000
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
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in program))
head = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, head):
    sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
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
