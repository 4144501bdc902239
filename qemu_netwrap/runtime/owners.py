"""Which processes are a run's QEMU, so that `stop` may signal them, and which only hold its lock.

The process that becomes QEMU is recorded when it is started. It and its descendants are QEMU. A
daemon has lost its parent, so nothing proves its descent. It is recognized by what no process can
be sent: the run's lock at the very number at which QEMU inherited it, in a process of QEMU's user
that has the same new parent as the run's keeper. Any other process that has the lock only holds a
descriptor, which any process can have been sent (unix(7), SCM_RIGHTS).
"""

from __future__ import annotations

import os
import signal

from qemu_netwrap import realm, record_text
from qemu_netwrap.linux import files, holders, proc, processes, run_locks, waits
from qemu_netwrap.linux.netlink.links import name_of
from qemu_netwrap.record import Record
from qemu_netwrap.runtime import runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_netwrap.errors import NetwrapError
    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.linux.processes import Running
    from qemu_netwrap.state import StateDir

_FIRST_FD = 64  # the lock's number is at least this in runs whose record does not state it
_ASLEEP = "flock"  # the keeper's program while it waits for the run's lock
UNSEEN = "no process that is seen here (a descriptor on its way over a socket, perhaps)"
_KILL_TIMEOUT = 5.0  # seconds


class Owner(Record):
    """The process that becomes QEMU, as it was recorded when the run began.

    Runs of older versions recorded its pid alone.
    """

    pid: int
    started: str = ""
    namespace: str = ""
    uid: int = 0  # the user that QEMU runs as, by the number that this process knows
    lock: int = -1  # the descriptor's number; -1 for a run that lasts as long as its tap


def read(state: StateDir, run: str) -> Owner | None:
    """Return a run's owner; None if it is unknown."""
    line = files.read(f"{state.run(run)}/qemu").rstrip("\n")
    try:
        if not line:
            pid = runs.read_info(state, run)[0].pid
            return Owner(int(pid)) if pid else None
        fields = record_text.read(line)[1]
        return Owner(
            int(fields["pid"]),
            fields["started"],
            fields.get("namespace", ""),
            _known_here(int(fields.get("uid", "0"))),
            int(fields.get("lock", "-1")),
        )
    except (KeyError, ValueError):
        return None  # damaged, or another version's: an unknown owner is not signalled


def _known_here(uid: int) -> int:
    """Return the number of a QEMU's user here. The launcher recorded it outside of a user's realm.

    In the realm the user is 0 (user_namespaces(7)), and so are the user's processes outside.
    """
    return uid if realm.is_system() else 0


class Family:
    """A snapshot of the host's processes, and which of them are a run's QEMU."""

    def __init__(self, state: StateDir) -> None:
        """Take the snapshot."""
        self.state = state
        self.table: dict[int, Running] = processes.process_table()

    def main(self, run: str) -> Process | None:
        """Return the process that was started as a run's QEMU; None when it has ended."""
        owner = read(self.state, run)
        return self._main(run, owner) if owner is not None else None

    def qemu(self, run: str) -> list[Process]:
        """Return all living processes of a run's QEMU, the main one first."""
        owner = read(self.state, run)
        return self.of(owner, run) if owner is not None else []

    def of(self, owner: Owner, run: str, known: list[Process] | None = None) -> list[Process]:
        """Return the same for a run with that OWNER; the run may be over by now.

        KNOWN are processes found earlier: they and what they started are QEMU's even if they have
        lost their parent since.
        """
        main = self._main(run, owner)
        lost = [p for p in known or () if p.pid in self.table and self.table[p.pid].process == p]
        roots = [*([main] if main else ()), *self._orphans(run, owner), *lost]
        acting = processes.users(main.pid) if main else None
        acting = acting or processes.Users(owner.uid, owner.uid, owner.uid)
        pids = [process.pid for process in roots]
        heirs = [
            each.process
            for each in processes.descendants(pids, self.table)
            if (theirs := processes.users(each.process.pid)) and acting.may_signal(theirs)
        ]
        return list(dict.fromkeys([*roots, *heirs]))

    def _main(self, run: str, owner: Owner) -> Process | None:
        """Return the process that OWNER describes; None if it has ended."""
        if owner.namespace in ("", proc.pid_namespace()):
            found = self.table.get(owner.pid)
            if found is None or owner.started not in ("", found.process.started):
                return None
            return found.process if owner.started or self._has(run, owner.pid) else None
        for pid, each in self.table.items():
            same = each.process.started == owner.started and processes.number_in(pid) == owner.pid
            if same and proc.pid_namespace(pid) == owner.namespace:
                return each.process
        return None

    def _has(self, run: str, pid: int) -> bool:
        """Whether a process has what keeps a run of an older version alive: its tap or its lock."""
        tap = self.state.tap(run)
        if tap is not None:
            return holders.has_tap(pid, name_of(tap.index))
        return self._has_lock(run, pid, -1)

    def _has_lock(self, run: str, pid: int, number: int) -> bool:
        """Whether a process has a run's lock at the number where QEMU inherited it.

        If that is unknown, it is beyond the numbers that a process opens by itself.
        """
        path = f"{self.state.run(run)}/lock"
        if number >= 0:
            return holders.has_at(pid, number, path)
        return any(fd >= _FIRST_FD and holders.has_at(pid, fd, path) for fd in proc.fds(pid))

    def _orphans(self, run: str, owner: Owner) -> list[Process]:
        """Return the daemons of a run's QEMU (see the module's docstring)."""
        if self.state.tap(run) is not None:
            return []
        since = int(owner.started or 0)
        late = [each for each in self.table.values() if int(each.process.started) >= since]
        having = [each for each in late if self._has_lock(run, each.process.pid, owner.lock)]
        if not having:
            return []
        keeper = f"{self.state.run(run)}/keeper"
        keepers = [p for p in self.table if holders.has_at(p, run_locks.KEEPERS_FD, keeper)]
        reapers = {self.table[pid].parent for pid in keepers} or {each.parent for each in having}
        return [
            each.process
            for each in having
            if each.process.pid not in keepers
            and each.parent in reapers
            and (theirs := processes.users(each.process.pid)) is not None
            and (theirs.real == owner.uid or (owner.uid == 0 and realm.is_system()))
        ]


def others(state: StateDir, run: str) -> list[int]:
    """Return the pids that have a run's lock, except those of its keeper and this process."""
    return run_locks.others(state.run(run))


def keepers(state: StateDir, run: str) -> list[int]:
    """Return the pid of a run's keeper in a list, empty if it has ended: it alone has its lock."""
    return run_locks.keepers(state.run(run))


def is_starting(state: StateDir, run: str) -> bool:
    """Whether what has a run's lock is still provisioning it: there is no info file yet.

    That ends by itself, even if QEMU is gone meanwhile: qemu-ifup finishes for a killed QEMU too.
    """
    folder = state.run(run)
    return not os.path.exists(f"{folder}/info") and bool(others(state, run))


def obstacles(state: StateDir, run: str) -> list[str]:
    """Return what keeps a run's lock from its keeper, as text; empty once the lock is free."""
    if not files.is_held(f"{state.run(run)}/lock"):
        return []
    named = [holders.named(pid) for pid in others(state, run)]
    if named:
        return named
    programs = [proc.name(pid) for pid in keepers(state, run)]
    is_unseen = _ASLEEP in programs or not programs
    # Meanwhile the keeper, now the waiter, may have released the run and ended.
    return [UNSEEN] if is_unseen and files.is_held(f"{state.run(run)}/lock") else []


def is_elsewhere(state: StateDir, run: str) -> bool:
    """Whether a run's keeper lives but is not visible here: it is in another pid namespace."""
    return not keepers(state, run) and files.is_locked(f"{state.run(run)}/keeper")


def take_over(state: StateDir, run: str, say: Callable[[str], None]) -> list[NetwrapError]:
    """Release a run whose lock other processes keep; return the errors.

    The lock file is replaced, so that the lock they have has no meaning any more. The keeper, which
    waits for the old one, is killed first.
    """
    folder = state.run(run)
    errors: list[NetwrapError] = []
    with files.Lock(state.takeover_lock):
        if os.path.exists(f"{folder}/lock"):
            for keeper in map(proc.of, keepers(state, run)):
                waits.process(keeper, _KILL_TIMEOUT, signal.SIGKILL)
            lock = files.replace_locked(f"{folder}/lock")
            try:
                errors = runs.release(state, run, say)
            finally:
                os.close(lock)
    state.tidy()
    return errors
