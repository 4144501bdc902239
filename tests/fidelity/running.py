"""What the tests of fidelity share: a wrapped and a bare QEMU, and a look at either by /proc."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.netns import Host

WRAPPED: Final = (COMMAND, "--")
STATE: Final = "/run/qemu-netwrap"
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
CLONE_NEWNET: Final = 0x40000000
TUNSETIFF: Final = 0x400454CA
TAP: Final = 0x1002  # IFF_TAP | IFF_NO_PI
FIRST_FD: Final = 64  # where descriptors of ours begin

# What of proc(5)'s stat is told by number, counted from behind the name: the third field is 0.
_STAT: Final = {"parent": 1, "group": 2, "session": 3, "terminal": 4, "foreground": 5} | {
    "priority": 15,
    "nice": 16,
    "exit_signal": 35,
    "rt_priority": 37,
    "policy": 38,
}
_STATUS: Final = re.compile(
    r"^(Name|Umask|TracerPid|Uid|Gid|Groups|NoNewPrivs|Seccomp\w*|Sig\w+|Cap\w+|CoreDumping|"
    r"THP_enabled|Spec\w+|Cpus_allowed|Mems_allowed):[ \t]*(.*)$",
    re.MULTILINE,
)
_FILES: Final = (
    *("limits", "oom_score_adj", "coredump_filter", "personality", "timerslack_ns", "cgroup"),
    *("environ", "loginuid", "sessionid", "setgroups", "uid_map"),
)
_LINKS: Final = (
    *("cwd", "root", "exe", "ns/net", "ns/mnt", "ns/pid", "ns/uts", "ns/ipc", "ns/user"),
    *("ns/cgroup", "ns/time_for_children", "ns/pid_for_children"),
)
# What Python ignores for itself: the launcher cannot know what its parent had, and restores the
# default (see `test_signals_that_python_takes_are_at_their_default`).
PYTHONS: Final = (signal.SIGPIPE, signal.SIGXFSZ)


def start(host: Host, *net: str, before: Iterable[str] = (), **kw: Any) -> subprocess.Popen[str]:
    """Start QEMU through the tool, and return when it is there in the launcher's place."""
    child = host.popen(*before, *WRAPPED, QEMU, *IDLE, *net, **{**QUIET, **kw})
    wait_for(lambda: is_qemu(child.pid), "QEMU in the launcher's place")
    return child


def is_qemu(pid: int) -> bool:
    """Whether that process is QEMU by now, and has come as far as to mind its signals."""
    if Path(f"/proc/{pid}/exe").resolve().name != QEMU:
        return False
    return bool(signals(pid, "SigCgt") & {signal.SIGTERM})


def end(host: Host, child: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """End a child, wait for the teardown and return the child's status."""
    child.send_signal(number)
    status = child.wait(30)
    host.run(COMMAND, "wait")
    assert host.run("ls", STATE, check=False).returncode != 0, "the state is not gone"
    return status


def below(pid: int) -> list[int]:
    """Return a process's children, theirs, and so on; they may come and go meanwhile."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except OSError:
        return []
    children = [int(word) for word in words]
    return [*children, *itertools.chain.from_iterable(map(below, children))]


def stat(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/stat that a process has from who started it."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    found = {name: fields[at] for name, at in _STAT.items()}
    leads = {name: "itself" for name in ("group", "session") if found[name] == str(pid)}
    return found | leads


def state(pid: int) -> str:
    """Return the letter that says whether a process sleeps, is stopped, or the like."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]


def status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status that a process has from who started it."""
    return dict(_STATUS.findall(Path(f"/proc/{pid}/status").read_text("utf-8")))


def signals(pid: int, field: str) -> set[int]:
    """Return the signals in a mask of /proc/PID/status: SigBlk, SigIgn or SigCgt."""
    mask = int(status(pid)[field], 16)
    return {number for number in range(1, 65) if mask >> number - 1 & 1}


def fds(pid: int) -> dict[int, str]:
    """Return the descriptors of a process and what each is, without the numbers of sockets."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        found[int(name)] = target if target.startswith("pipe") else re.sub(r"\[\d+\]", "", target)
    return found


def inherited(pid: int) -> dict[str, str]:
    """Return all that can be seen of what a process has from who started it, fds excepted."""
    proc = Path(f"/proc/{pid}")
    facts = {f"stat {key}": value for key, value in stat(pid).items()}
    facts |= {f"status {key}": value for key, value in status(pid).items()}
    for name in _FILES:
        if (proc / name).exists():
            facts[name] = (proc / name).read_bytes().decode("utf-8", "backslashreplace")
    facts |= {name: str((proc / name).readlink()) for name in _LINKS}
    facts["owner"] = str((proc / "environ").stat().st_uid)  # root's when it is not dumpable
    return facts


def difference(one: int, other: int) -> dict[str, tuple[str | None, str | None]]:
    """Return what is different between two processes, the signals that Python takes excepted.

    SigQ is how many signals are queued for all processes of the user: it may differ at any time.
    """
    a, b = inherited(one), inherited(other)
    for facts in (a, b):
        facts.pop("status SigQ", None)
        mask = int(facts["status SigIgn"], 16)
        for number in PYTHONS:
            mask &= ~(1 << number - 1)
        facts["status SigIgn"] = f"{mask:016x}"
    return {k: (a.get(k), b.get(k)) for k in a.keys() | b.keys() if a.get(k) != b.get(k)}


def is_asleep(pid: int) -> bool:
    """Whether a process has become sleep(1), and sleeps."""
    proc = Path(f"/proc/{pid}")
    if (proc / "comm").read_text("utf-8").rstrip() != "sleep":
        return False
    return "nanosleep" in (proc / "stack").read_text("utf-8")


def keeper_of(host: Host, run: int | str) -> int:
    """Return the process id of a run's keeper, as soon as it sleeps."""

    def found() -> list[int]:
        processes = host.processes().items()
        return [p for p, words in processes if "waiter.py" in words and f"/runs/{run} " in words]

    wait_for(lambda: bool(found()), f"the keeper of run {run}")
    (pid,) = found()
    wait_for(lambda: "flock" in Path(f"/proc/{pid}/stack").read_text("utf-8"), "it to sleep")
    return pid


def keepers_fds(pid: int) -> set[str]:
    """Return the names of what a keeper has open."""
    return {Path(target).name for target in fds(pid).values()}


def links(host: Host) -> set[str]:
    """Return the names of all interfaces."""
    return {line.split(":")[0].strip() for line in host.proc_net("dev").splitlines()[2:]}


def state_folder(host: Host) -> str:
    """Return the state folder of a machine's network namespace."""
    code = "from qemu_netwrap.state import StateDir; print(StateDir.here().base)"
    return host.run(sys.executable, "-c", code).stdout.strip()


def runs(host: Host, namespace: str) -> list[str]:
    """Return the runs of which there is a trace in the state folder NAMESPACE."""
    folder = Path(f"/proc/{host.pid}/root{namespace}/runs")
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def open_tap(host: Host, name: str) -> int:
    """Make a tap on a machine by hand, and return its descriptor, at 64 or above."""
    found: list[int] = []

    def enter() -> None:
        # A thread of its own: its network namespace goes with it.
        with Path(f"/proc/{host.pid}/ns/net").open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                return
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP))
        found.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD))
        os.close(fd)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


def script(folder: Path, text: str) -> str:
    """Write a shell script that stands in for QEMU, to see what QEMU finds; return its path."""
    path = folder / "qemu-standin"
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return str(path)
