"""What runs inside the nested machine and does as the tests tell it (lab/nested.py).

    python3 agent.py PORT

Each line on the port is a JSON object that asks, and is answered by one. Everything there is
emulated, and slow: importing the program's libraries takes ten seconds. So the program itself is
not started but forked from here, where it has been imported once.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS = "qemu-netwrap"


class Running(NamedTuple):
    """A command: its process, and what it has printed."""

    pid: int
    out: IO[bytes]
    err: IO[bytes]
    statuses: list[int]  # one, once it has ended

    def status(self, patience: float = 0.0) -> int | None:
        """Return the exit status; None if it goes on for so many seconds."""
        if not self.statuses:
            fd = os.pidfd_open(self.pid)
            ended = select.select([fd], [], [], patience)[0]
            os.close(fd)
            if ended:
                self.statuses.append(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        return self.statuses[0] if self.statuses else None


_running: dict[int, Running] = {}


def run(told: dict[str, Any]) -> dict[str, Any]:
    """Run a command to its end, or to the end of its time with all that it has started."""
    running = _begin(told["argv"], told["text"])
    late = ""
    status = running.status(told["timeout"])
    if status is None:
        os.killpg(running.pid, signal.SIGKILL)
        status = running.status(told["timeout"])
        late = f"killed after {told['timeout']} s"
    return {"status": status, "stdout": _text(running.out), "stderr": _text(running.err) + late}


def start(told: dict[str, Any]) -> dict[str, Any]:
    """Start a command."""
    running = _begin(told["argv"], "")
    _running[running.pid] = running
    return {"pid": running.pid}


def poll(told: dict[str, Any]) -> dict[str, Any]:
    """Say how what was started fares."""
    running = _running[told["pid"]]
    return {"status": running.status(), "printed": _text(running.out) + _text(running.err)}


def call(told: dict[str, Any]) -> dict[str, Any]:
    """Call a function of a module below tests/."""
    try:
        module = importlib.import_module(told["module"])
        return {"value": getattr(module, told["function"])(*told["args"])}
    except Exception:  # noqa: BLE001 - the tests are told
        return {"error": traceback.format_exc()}


def _begin(argv: list[str], text: str) -> Running:
    """Start a command with TEXT on its standard input."""
    out, err = (tempfile.TemporaryFile(dir="/mnt/job") for _ in range(2))  # noqa: SIM115
    with tempfile.TemporaryFile(dir="/mnt/job") as given:
        given.write(text.encode())
        given.seek(0)
        return Running(_started(argv, (given, out, err)), out, err, [])


def _started(argv: list[str], standard: tuple[IO[bytes], IO[bytes], IO[bytes]]) -> int:
    """Start a command with these standard files; return its process id."""
    given, out, err = standard
    if os.path.basename(argv[0]) == _OURS:
        pid = os.fork()
        if pid == 0:
            _be_ours(argv, standard)
        return pid
    try:
        return subprocess.Popen(
            argv, stdin=given, stdout=out, stderr=err, start_new_session=True
        ).pid
    except OSError as error:
        err.write(str(error).encode())
        err.flush()
        return subprocess.Popen(["false"]).pid


def _be_ours(argv: list[str], standard: Iterable[IO[bytes]]) -> None:
    """Be the program. Does not return."""
    status = 1
    try:
        os.setsid()
        for to, file in enumerate(standard):
            os.dup2(file.fileno(), to)
        sys.argv = argv
        from qemu_netwrap.__main__ import main as program

        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a forked child must not return
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _text(file: IO[bytes]) -> str:
    """Return what a command has printed, wherever it is in that file."""
    fd = file.fileno()
    return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace")


def main() -> None:
    """Answer until the port closes."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    verbs = {"run": run, "start": start, "poll": poll, "call": call}
    for module in (
        "cli.main",
        "runtime.provision",
        "passthrough.assign",
        "resources.vfio",
        "linux.netlink.vf_settings",
    ):
        importlib.import_module(f"qemu_netwrap.{module}")
    with Path(sys.argv[1]).open("r+b", buffering=0) as port:
        pending = b""
        while True:
            pending += port.read(65536)
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                told = json.loads(line)
                raw = json.dumps(verbs[told["verb"]](told)).encode() + b"\n"
                while raw:
                    raw = raw[port.write(raw) :]


if __name__ == "__main__":
    main()
