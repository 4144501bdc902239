"""Ordinary users of a simulated machine: what somebody who logged in there has, and no more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.netns import CommandFailedError, is_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.netns import Host

ALICE: Final = ("alice", 1000)
BOB: Final = ("bob", 1001)

# As Debian's /etc/login.defs gives it to users: without the sbin folders.
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"

# Accounts of the real machine with the same name or number make room.
_ACCOUNT: Final = r"""
set -eu
for file in passwd group; do
    kept=$(grep -v -e "^$1:" -e "^[^:]*:[^:]*:$2:" "/etc/$file")
    echo "$kept" >"/etc/$file"
done
echo "$1:x:$2:$2::/home/$1:/bin/sh" >>/etc/passwd
echo "$1:x:$2:" >>/etc/group
if ! mountpoint -q /home; then
    mount -t tmpfs -o mode=755 home /home
    mount -t tmpfs -o mode=1777 tmp /tmp
fi
mkdir -m 700 "/home/$1"
chown "$2:$2" "/home/$1"
"""

# As pam_systemd makes it at login.
_RUNTIME: Final = r"""
set -eu
mkdir -p "/run/user/$1"
mount -t tmpfs -o "nosuid,nodev,mode=700,uid=$1,gid=$1" runtime "/run/user/$1"
"""

_SUBIDS: Final = r"""
set -eu
for file in subuid subgid; do echo "$1:$2:$3" >>"/etc/$file"; done
"""

# udev gives /dev/net/tun to all; the real machine's may be root's.
_TUN: Final = r"""
set -eu
mountpoint -q /dev/net || mount -t tmpfs -o mode=755 lab /dev/net
rm -f /dev/net/tun
[ -z "$1" ] || mknod -m "$1" /dev/net/tun c 10 200
"""

_WRITE: Final = r"""
set -eu
mkdir -p "${1%/*}"
cat >"$1"
"""


@dataclass(frozen=True)
class User:
    """An ordinary user who is logged in on `host`: no capability, an environment of their own.

    The machine gets a /home and a /tmp of its own: what the tests have in /tmp it does not see.
    `runtime` tells whether there is an XDG_RUNTIME_DIR. `tun` is the mode of the machine's
    /dev/net/tun, None if there is none. `subids` are the first and the number of the ids that
    /etc/subuid and /etc/subgid give the user. `before` are words that root runs before it becomes
    the user, see lab.confined. What the user leaves behind is seen by the leak detector.
    """

    host: Host
    name: str = ALICE[0]
    uid: int = ALICE[1]
    runtime: bool = True
    tun: int | None = 0o666
    subids: tuple[int, int] | None = None
    before: tuple[str, ...] = ()
    env: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Make the account, the home, and what a login makes."""
        self._script(_ACCOUNT, self.name, str(self.uid))
        self._script(_TUN, "" if self.tun is None else f"{self.tun:o}")
        shared = ["/tmp"] if "/tmp" not in self.host.own else []  # noqa: S108  the machine's
        self.host.own += [self.home, *shared]
        self.log_in()
        if self.subids:
            self._script(_SUBIDS, self.name, *map(str, self.subids))
        self.host.uids.extend(self.uids)
        object.__setattr__(self, "env", self._environment())

    @property
    def home(self) -> str:
        """The home, a folder of the simulated machine alone."""
        return f"/home/{self.name}"

    @property
    def uids(self) -> tuple[range, ...]:
        """The user ids of this user's processes."""
        first, number = self.subids or (0, 0)
        return (range(self.uid, self.uid + 1), range(first, first + number))

    @property
    def runtime_folder(self) -> str:
        """The folder that XDG_RUNTIME_DIR names, where there is one."""
        return f"/run/user/{self.uid}"

    def argv(
        self,
        *cmd: str,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> list[str]:
        """Return the command line by which root runs `cmd` as this user, in `cwd` or the home.

        The bounding set stays, as at a login: setuid programs work.
        """
        become = (f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups")
        words = [f"{name}={value}" for name, value in {**self.env, **(env or {})}.items()]
        login = ("setpriv", *become, "--inh-caps=-all", "--ambient-caps=-all", "--", "env", "-i")
        return self.host.argv(*self.before, *login, *words, *cmd, cwd=cwd or self.home)

    def run(
        self,
        *cmd: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002  the name that subprocess.run gives it
        timeout: float = 180.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `cmd` as Host.run does; `env` is added to the user's environment."""
        done = subprocess.run(
            self.argv(*cmd, env=env, cwd=cwd),
            check=False,
            input="" if input is None else input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            done.args = cmd
            raise CommandFailedError(f"{self.name}@{self.host.name}", done)
        return done

    def popen(
        self,
        *cmd: str,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        **kw: Any,
    ) -> subprocess.Popen[str]:
        """Start `cmd` as Host.popen does; `env` is added to the user's environment."""
        return self.host.adopt(self.argv(*cmd, env=env, cwd=cwd), **kw)

    def sh(self, script: str) -> str:
        """Run a shell script that ends at the first failure; return what it prints."""
        return self.run("sh", "-euc", script).stdout

    def write(self, path: str, text: str) -> None:
        """Write a file as the user, `path` absolute or below the home; no leak if it stays so."""
        place = str(Path(self.home, path))
        self.run("sh", "-c", _WRITE, "write", place, input=text)
        self.host.written[place] = text

    def read(self, path: str) -> str:
        """Return the text of a file as the user reads it, `path` absolute or below the home."""
        return self.run("cat", "--", str(Path(self.home, path))).stdout

    def lend(self, path: Path) -> str:
        """Return the path by which this user reads a file of the tests: a copy's."""
        return self.host.copy(path)

    def take_back(self, lent: str) -> None:
        """Remove what was lent."""
        self.host.take_back(lent)

    def processes(self) -> dict[int, str]:
        """Return process id and command line of all that this user has running on the machine."""
        return {pid: cmd for pid, cmd in self.host.processes().items() if is_of(pid, self.uids)}

    def log_in(self) -> None:
        """Make what a login makes, again after `log_out`."""
        if self.runtime:
            self._script(_RUNTIME, str(self.uid))

    def log_out(self, patience: float = 90.0) -> None:
        """End the login as systemd-logind does with KillUserProcesses=yes; nothing can run after.

        All processes get SIGTERM and SIGHUP, what is left after `patience` seconds (its default
        TimeoutStopSec=) SIGKILL; then the runtime folder goes.
        """
        deadline = time.monotonic() + patience
        self._signal(signal.SIGTERM, signal.SIGHUP)
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        while self.processes():
            self._signal(signal.SIGKILL)
        if self.runtime:
            self.host.run("umount", "--lazy", self.runtime_folder)
            self.host.run("rmdir", self.runtime_folder)

    def _signal(self, *numbers: signal.Signals) -> None:
        """Send signals to all processes of this user."""
        for pid in self.processes():
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _environment(self) -> dict[str, str]:
        """Return the environment of a login."""
        found = {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": "/bin/sh",
            "PATH": _PATH,
        }
        return found | ({"XDG_RUNTIME_DIR": self.runtime_folder} if self.runtime else {})

    def _script(self, script: str, *args: str) -> None:
        """Run a shell script as root of the machine."""
        self.host.run("sh", "-c", script, "user", *args)
