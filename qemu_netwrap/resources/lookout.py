"""A process for each nat network that sleeps until the host's way out may have changed.

Two small programs sleep instead of an interpreter: head(1), which reads a byte of the kernel's
message, and the shell that waits for it and then becomes `runtime.uplink_follower`. That adapts the
network, and becomes the shell again. The process is a child of init, and ends with its network.
"""

from __future__ import annotations

import os
import sys
from _signal import SIGHUP, SIGINT, SIGTERM

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.resources.base import Context, Saved

SHELL = "/bin/sh"
_SLEEP = 'head -c 1 >/dev/null && exec "$@"'
_START = 'sh -c "$0" "$@" <&3 3<&- >/dev/null 2>&1 & echo $!'
_FOLLOWER = "follower.py"  # the end of its path, in older versions too
_SCRIPT = f"{__file__.rsplit('/', 2)[0]}/runtime/uplink_follower.py"


class Lookout(Resource):
    """A process that adapts a network whenever the host's way out changes."""

    kind = "Lookout"

    bridge: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Start it. It subscribes before it looks, so that no change is missed."""
        folder = context.state.network(self.bridge)
        watched = linux.netlink.watch.watch_way_out(ways(context))
        starter, told = _spawn(folder, watched)
        watched.close()
        yield
        _, status = os.waitpid(starter, 0)
        os.lseek(told, 0, os.SEEK_SET)
        pid = os.read(told, 64).decode().strip()
        os.close(told)
        if status or not pid.isdigit():
            raise HostError("sh(1) cannot be started", "is /bin/sh there?")
        linux.files.write(f"{folder}/lookout", f"{pid} {linux.proc.started(pid)}\n")

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """End it; search all processes for it if a crash came before its pid was noted."""
        folder = context.state.network(self.bridge)
        found = find(folder)
        for process in [found] if found else _all(folder) if not _noted(folder) else []:
            linux.waits.kill_group(process)
        linux.files.remove(f"{folder}/lookout")
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether the process has ended."""
        return find(context.state.network(self.bridge)) is None

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return Commands(
            (f"# {self.bridge} follows the host's way out: a process sleeps until that changes",),
            ("# that process ends",),
        )


def sleeping(folder: str) -> list[str]:
    """Return the command line of the shell that sleeps until the way out may have changed."""
    again = (sys.executable, "-I", "-S", _SCRIPT, folder)
    return ["sh", "-c", _SLEEP, "lookout", *again]


def ways(context: Context) -> tuple[int, int]:
    """Return the ifindexes of the IPv4 and the IPv6 default route's device; 0 for none."""
    return context.rtnl.default_index(4), context.rtnl.default_index(6)


def find(folder: str) -> Process | None:
    """Return the process of the network with state in FOLDER; None if it is not running."""
    words = _noted(folder)
    if len(words) != 2:
        return None
    process = linux.proc.Process(int(words[0]), words[1])
    return process if linux.proc.lives(process) and folder in linux.proc.command(words[0]) else None


def set_apart(folder: str) -> None:
    """Move it and its child out of this process's control group: it serves other runs too."""
    process = find(folder)
    if process is not None:
        for pid in (*linux.proc.children(process.pid), process.pid):
            linux.cgroup.leave(pid)


def _spawn(folder: str, watched: _socket.socket) -> tuple[int, int]:
    """Start the shell that starts it; return the shell's pid, and a descriptor of its output."""
    told = os.memfd_create("told", os.MFD_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    opened = (null, told, null, watched.fileno())
    starter = os.posix_spawn(
        SHELL,
        ["sh", "-c", _START, *sleeping(folder)[2:]],
        {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(opened)],
        setsid=True,
        setsigdef=[SIGHUP, SIGINT, SIGTERM],
    )
    os.close(null)
    return starter, told


def without_state(bridge: str, context: Context) -> list[Process]:
    """Return the processes of a network whose state has been removed.

    Any user can choose such a command line: only a process whose user ids are all root's counts,
    in this network namespace.
    """
    found = _all(context.state.network(bridge))
    return [process for process in found if _is_roots(process.pid)]


def _is_roots(pid: int) -> bool:
    """Whether all user ids of a process are root's, and it is in this network namespace."""
    is_roots = linux.proc.users(pid) == (os.geteuid(),) * 4
    return is_roots and linux.proc.is_in_our_network(pid)


def _all(folder: str) -> list[Process]:
    """Return every process of the network with state in FOLDER.

    Any user can choose such a command line: only processes of this user count.
    """
    mine = (pid for pid in linux.proc.pids() if linux.proc.user(pid) == os.geteuid())
    return [
        linux.proc.of(pid)
        for pid in mine
        if pid != os.getpid() and _is_for(folder, linux.proc.command(pid))
    ]


def _is_for(folder: str, words: list[str]) -> bool:
    """Whether the command line WORDS is that of a process of the network in FOLDER."""
    return folder in words and any(word.endswith(_FOLLOWER) for word in words)


def _noted(folder: str) -> list[str]:
    """Return [pid, start time] as noted; [] if they are not."""
    return linux.files.read(f"{folder}/lookout").split()
