"""A simulated machine with systemd as its first process, and no unit but the test's.

A namespace of process ids, and a tree of control groups below the one that the tests are in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fidelity.running import below
from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host

# The control group is made where the tests are; inside it is the root of all. What systemd keeps
# in /run is its own, the rest of /run the machine's.
_BOOT: Final = r"""
set -eu
mkdir /run/systemd
mount -t cgroup2 cgroup2 /run/systemd
above=/run/systemd$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$above/$1"
echo $$ >"$above/$1/cgroup.procs"
inside="--cgroup --pid --fork --kill-child --mount --mount-proc"
env -i PATH="$PATH" unshare $inside sh -euc "$2" 2>/dev/null || :
echo $$ >"$above/cgroup.procs"
find "$above/$1" -depth -type d -exec rmdir {} +
umount /run/systemd
rmdir /run/systemd
rm -df /run/credentials
"""
_BE_SYSTEMD: Final = r"""
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run/systemd
mount --bind /etc /etc
mount -o remount,bind,ro /etc  # it would write a machine-id
mkdir /run/systemd/units
for each in sysinit basic shutdown default; do
    printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/units/$each.target
done
export container=lab SYSTEMD_UNIT_PATH=/run/systemd/units SYSTEMD_GENERATOR_PATH=/nonexistent
exec /lib/systemd/systemd --system --log-target=null
"""


class Booted:
    """A machine's systemd, for a while."""

    def __init__(self, host: Host) -> None:
        """Start systemd on HOST; it answers on return."""
        self.host = host
        name = f"qemu-netwrap-lab-{host.pid}"
        self._outside = host.popen(
            *("unshare", "--mount", "sh", "-c", _BOOT, "boot", name, _BE_SYSTEMD),
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._has_begun, "systemd")
        wait_for(self._answers, "systemd to answer")

    def __enter__(self) -> Self:
        """Return the machine itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End systemd and with it all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        assert self._outside.wait(30) == 0, "the control group cannot be removed"

    def _has_begun(self) -> bool:
        """Whether there is a systemd; it is remembered as `pid`."""
        named = (p for p in below(self._outside.pid) if _comm(p) == "systemd")
        self.pid = next(named, 0)
        return bool(self.pid)

    def _answers(self) -> bool:
        """Whether systemd takes commands."""
        return self.systemctl("is-system-running", check=False).stdout in (
            "running\n",
            "degraded\n",
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command among the processes that systemd has started."""
        inside = ("nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup")
        return self.host.run(*inside, *words, check=check, timeout=120)

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run systemctl."""
        return self.run("systemctl", *words, check=check)

    def unit(self, name: str, *lines: str) -> None:
        """Make a unit of these lines, known to systemd on return."""
        path = Path(f"/proc/{self.pid}/root/run/systemd/units/{name}")
        path.write_text("\n".join(lines) + "\n", "utf-8")
        self.systemctl("daemon-reload")

    def shown(self, unit: str, key: str) -> str:
        """Return what systemd says of a unit."""
        return self.systemctl("show", "--value", f"--property={key}", unit).stdout.strip()

    def pids(self, unit: str) -> list[int]:
        """Return the processes of a unit's control group, numbered as they are outside."""
        group = self.shown(unit, "ControlGroup")
        path = Path(f"/proc/{self.pid}/root/sys/fs/cgroup{group}/cgroup.procs")
        return [int(word) for word in path.read_text("ascii").split()] if group else []

    def main(self, unit: str) -> int:
        """Return a unit's main process, numbered as it is outside; 0 without one."""
        inside = self.shown(unit, "MainPID")
        return next((pid for pid in below(self.pid) if _inside(pid) == inside), 0)


def _comm(pid: int) -> str:
    """Return a process's name; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8").rstrip()
    except OSError:
        return ""


def _inside(pid: int) -> str:
    """Return the number that a process has in its own namespace; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split()[-1] for line in lines if line.startswith("NSpid:")), "")
