"""Processes, by psutil: who QEMU is, how it fares, and how it is stopped."""

from __future__ import annotations

import os
import time

import psutil

from qemu_netwrap.core.record import Record


class Usage(Record):
    """What a process has used. Times in seconds, memory (resident) in bytes."""

    pid: int
    name: str
    uptime: float
    cpu: float
    memory: int


def holders(path: str) -> list[psutil.Process]:
    """Return the processes that have a file open: for a run's lock, QEMU and its like."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path == path for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def usage(process: psutil.Process) -> Usage | None:
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


def stop(processes: list[psutil.Process], patience: float) -> list[int]:
    """End processes with all their children; return the pids that had to be killed.

    They are asked first (SIGTERM) and killed after PATIENCE seconds.
    """
    tree = {p.pid: p for process in processes for p in (process, *_children(process))}
    tree.pop(os.getpid(), None)
    for process in tree.values():
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(list(tree.values()), timeout=patience)
    for process in alive:
        _quietly(process.kill)
    psutil.wait_procs(alive, timeout=patience)
    return [process.pid for process in alive]


def _children(process: psutil.Process) -> list[psutil.Process]:
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
