"""A process for each run of an ordinary user's that sleeps until something of the networks dies.

It stays outside of the user's network namespace, where alone the program that leads out can be
started, and ports of the host can be taken (`runtime.mending`). It is there with each run: what the
first run has started may die with that run's control group. Until the keeper has told it what to
watch it is a shell that waits for a line, then a bare interpreter, run as a file, which loads
nothing that waiting does not need. It ends with the run.

    python3 -I -S warden.py RUN-FOLDER QEMU-PID PAUSE SINCE [PID START-TIME]...

PAUSE is for how many seconds it has waited before it last tried to put something back, at SINCE
(CLOCK_MONOTONIC): what dies over and over, or cannot be started, is tried ever more rarely.
"""

import fcntl
import posix
import select
import sys
import time

_WAIT = 'read -r words <&3 && exec "$@" $words 3<&-'
_LONGEST_PAUSE, _CALM = 64.0, 60.0  # seconds; after CALM without a death there is no pause


def command(folder: str, qemu: int) -> list[str]:
    """Return the command line of the shell that becomes the warden of the run in FOLDER.

    It reads the processes to watch from the descriptor 3: one line, PID START-TIME for each.
    """
    words = (sys.executable, "-I", "-S", __file__, folder, str(qemu), "0", "0")
    return ["sh", "-c", _WAIT, "warden", *words]


def main() -> None:
    """Sleep until one of the processes has ended; put back what has died; sleep again."""
    folder, qemu, pause, since, *words = sys.argv[1:]
    wanted = list(zip(words[::2], words[1::2], strict=True))
    poll = select.poll()
    if _register(poll, wanted) == len(wanted):
        poll.poll()
    now = time.monotonic()
    wait = 0.0 if now - float(since) > _CALM else min(2 * float(pause) or 1.0, _LONGEST_PAUSE)
    if not _pause(poll, float(since) + wait, folder, qemu):
        return  # the keeper releases the run
    sys.dont_write_bytecode = True  # the package may be in a user's home
    sys.path.insert(0, __file__.rsplit("/", 3)[0])
    from qemu_netwrap.runtime import mending  # noqa: PLC0415 - run as a file

    watched = mending.mend(folder)
    if watched:
        state = (str(wait), str(time.monotonic()))
        posix.execv(sys.executable, [*sys.orig_argv[:4], folder, qemu, *state, *watched.split()])


def _register(poll: select.poll, wanted: list[tuple[str, str]]) -> int:
    """Have POLL watch those of the processes (pid, start time) that live; return their number."""
    number = 0
    for pid, started in wanted:
        try:
            fd = posix.pidfd_open(int(pid))
        except OSError:
            continue
        if _started(pid) == started:
            poll.register(fd, select.POLLIN)
            number += 1
        else:
            posix.close(fd)
    return number


def _pause(poll: select.poll, until: float, folder: str, qemu: str) -> bool:
    """Wait until a time of CLOCK_MONOTONIC; return whether the run lives, at once if it ends."""
    while _lives(folder, qemu):
        left = until - time.monotonic()
        if left <= 0:
            return True
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
    return False


def _started(pid: str) -> str:
    """Return the start time of a process, as linux.proc has it; empty if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _lives(folder: str, qemu: str) -> bool:
    """Whether a run's QEMU lives: its lock is taken, and not by a process that releases the run.

    The lock was taken by the process with the pid QEMU, which may have made itself a daemon since.
    """
    try:
        fd = posix.open(f"{folder}/lock", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        inode = str(posix.fstat(fd).st_ino)
    else:
        return False
    finally:
        posix.close(fd)
    with open("/proc/locks", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    took = {row[4] for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}")}
    return not any(_started(pid) for pid in took - {qemu})


if __name__ == "__main__":
    main()
