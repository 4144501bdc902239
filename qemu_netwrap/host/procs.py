"""Processes, by psutil: who QEMU is, how it fares, and how it is stopped."""

from __future__ import annotations

import os
import select
import time

import psutil
from psutil import Process

from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Process", "Usage", "holders", "living", "running", "stop", "usage"]


class Usage(Record):
    """What a process has used. Times in seconds, memory (resident) in bytes."""

    pid: int
    name: str
    uptime: float
    cpu: float
    memory: int


def holders(path: str, without: str = "") -> list[Process]:
    """Return the processes that have file PATH open, and not file WITHOUT."""
    found = []
    for process in psutil.process_iter():
        try:
            opened = {file.path for file in process.open_files()}
            if path in opened and without not in opened:
                found.append(process)
        except psutil.Error:
            continue
    return found


def living(pids: Iterable[int]) -> list[Process]:
    """Return those of the processes that are there."""
    found = []
    for pid in pids:
        try:
            found.append(Process(pid))
        except psutil.Error:
            continue
    return found


def usage(process: Process) -> Usage | None:
    """Return what a process has used; None when it is gone."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            return Usage(
                process.pid,
                process.name(),
                max(0.0, time.time() - process.create_time()),
                times.user + times.system,
                process.memory_info().rss,
            )
    except psutil.Error:
        return None


def running(names: tuple[str, ...]) -> frozenset[str]:
    """Return those of the named programs that run."""
    return frozenset(p.info["name"] for p in psutil.process_iter(["name"])) & frozenset(names)


def stop(processes: list[Process], patience: float) -> list[int]:
    """End processes with all their children; return the pids that had to be killed.

    They are asked first (SIGTERM) and killed after PATIENCE seconds.
    """
    tree = {p.pid: p for process in processes for p in (process, *_children(process))}
    tree.pop(os.getpid(), None)
    for process in tree.values():
        _quietly(process.terminate)
    alive = _still_alive(list(tree.values()), patience)
    for process in alive:
        _quietly(process.kill)
    _still_alive(alive, patience)
    return [process.pid for process in alive]


def _still_alive(processes: list[Process], patience: float) -> list[Process]:
    """Wait for the end of processes, PATIENCE seconds at most; return those that go on.

    By pidfd, which tells the end of a process also when its parent has not heard of it yet;
    `psutil.wait_procs` takes such a zombie for alive.
    """
    deadline = time.monotonic() + patience
    return [process for process in processes if not _ends_by(process, deadline)]


def _ends_by(process: Process, deadline: float) -> bool:
    """Whether a process ends before DEADLINE (monotonic seconds)."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        left = max(0.0, deadline - time.monotonic())
        return bool(poll.poll(left * 1000)) or not process.is_running()
    finally:
        os.close(fd)


def _children(process: Process) -> list[Process]:
    """Return a process's children, and theirs."""
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _quietly(action: object) -> None:
    """Do something to a process that may be gone."""
    try:
        action()  # type: ignore[operator] # psutil is untyped
    except psutil.NoSuchProcess:
        pass
