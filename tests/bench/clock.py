"""The stop watch: how long from exec to QEMU's first answer, and from its last to its end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from lab.tool import QEMU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.netns import Host
    from lab.user import User

# A machine without a guest: what is measured is how QEMU comes up, not what runs in it.
MACHINE: Final = (
    *("-M", "none", "-accel", "tcg", "-display", "none", "-nodefaults", "-S", "-qmp", "stdio"),
)
BARE: Final = (QEMU, *MACHINE)

_NAMESPACES: Final = 0x40000000 | 0x00020000  # CLONE_NEWNET | CLONE_NEWNS
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Vm:
    """One QEMU, or a launcher that becomes one, on a simulated machine."""

    def __init__(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        fds: Sequence[int] = (),
        user: User | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start ARGV as USER, else as root, in the environment ENV, else this one; it inherits FDS.

        The watch starts right before its exec.
        """
        clock, told = os.pipe()

        def enter() -> None:
            fd = os.pidfd_open(host.pid)
            if _LIBC.setns(fd, _NAMESPACES):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(fd)
            if user is not None:
                os.chdir(user.home)
                os.setgroups([])
                os.setresgid(user.uid, user.uid, user.uid)
                os.setresuid(user.uid, user.uid, user.uid)
            os.write(told, time.monotonic_ns().to_bytes(8))

        self.argv = argv
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=fds,
            env=env,
            preexec_fn=enter,  # noqa: PLW1509  there are no threads
            bufsize=0,
        )
        self.pid = self.process.pid
        self._start = int.from_bytes(os.read(clock, 8))
        os.close(clock)
        os.close(told)

    def up(self) -> float:
        """Wait until QEMU answers; return the milliseconds since exec."""
        self._line()  # its greeting
        self._say('{"execute": "qmp_capabilities"}')
        self._line()
        return (time.monotonic_ns() - self._start) / 1e6

    def over(self) -> float:
        """Wait for the end; return the milliseconds since exec."""
        return self._reap(self._start)

    def quit(self) -> float:
        """Have QEMU end; return the milliseconds until it, or who started it, is reaped."""
        begun = time.monotonic_ns()
        self._say('{"execute": "quit"}')
        return self._reap(begun)

    def kill(self) -> float:
        """Kill QEMU; return the milliseconds until it is reaped."""
        begun = time.monotonic_ns()
        self.process.send_signal(signal.SIGKILL)
        return self._reap(begun)

    def _reap(self, begun: int) -> float:
        """Wait for the end."""
        self.process.wait()
        took = (time.monotonic_ns() - begun) / 1e6
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return took

    def _say(self, words: str) -> None:
        """Send QEMU a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(words.encode() + b"\n")

    def _line(self) -> None:
        """Read QEMU's next line. RuntimeError with what was said instead if it has ended."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            _, told = self.process.communicate()
            raise RuntimeError(f"{self.argv}: {told.decode(errors='replace')}")
