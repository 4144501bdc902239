"""Makes a checkout that only root can enter reachable for the ordinary users that tests become.

Such a checkout lies below a folder like /root, whose mode is 0700. The tests' process gets a mount
namespace of its own, and in it, in place of each such folder, one of mode 0755 that has the entries
of the real one bound in. The real folders stay as they are.
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_CLONE_NEWNS: Final = 0x00020000  # linux/sched.h
_OPEN: Final = r"""
set -eu
mount --make-rprivate /
open=$(mktemp -d)
mount -t tmpfs -o mode=755 open "$open"
cd "$1"
for each in * .*; do
    case $each in . | ..) continue ;; esac
    if [ -L "$each" ]; then
        cp -P "$each" "$open/$each"
    elif [ -d "$each" ]; then
        mkdir "$open/$each"
        mount --rbind "$each" "$open/$each"
    elif [ -e "$each" ]; then
        : >"$open/$each"
        mount --bind "$each" "$open/$each"
    fi
done
mount --move "$open" "$1"
rmdir "$open"
"""


def expose(path: Path) -> None:
    """Make PATH reachable for all users, in a mount namespace of this process's own if need be.

    Does nothing for an ordinary user, whose tests become nobody else.
    """
    if os.geteuid() != 0:
        return
    closed = [each for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH]
    if closed:
        _unshare_mounts()
    for each in closed:
        subprocess.run(("sh", "-c", _OPEN, "open", str(each)), check=True, cwd="/")
    # The current folder is the real one; by its path it is the one that others reach too.
    os.chdir(os.getcwd())


def _unshare_mounts() -> None:
    """Give this process a mount namespace of its own; os.unshare is there from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
