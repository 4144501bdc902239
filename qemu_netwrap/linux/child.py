"""Programs on the launch path: nft and dnsmasq, started side by side and waited for later.

`os.posix_spawn`, because importing `subprocess` costs as much as both programs take to run.
"""

from __future__ import annotations

import errno
import os

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import waits
from qemu_netwrap.linux.files import open_locked
from qemu_netwrap.linux.programs import SBIN, find, find_trusted
from qemu_netwrap.model import plain_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGPIPE = 13
ENVIRONMENT = {"PATH": f"{SBIN}:/usr/bin:/bin", "LC_ALL": "C"}
_PACKAGES = {"nft": "nftables", "dnsmasq": "dnsmasq-base", "tc": "iproute2", "pasta": "passt"}
_OUTPUT = 65536
_MOST_OUTPUT = 64 << 20  # bytes; more than any list of rules has


def require(program: str) -> str:
    """Return the path of a program. Raises `HostError` that names its package if it is missing."""
    path = find_trusted(program, SBIN)
    if path:
        return path
    others = find(program, SBIN)
    if others:
        raise HostError(
            f"{others}: others than its owner, or than root, could change it; it is not started",
            f"see to owner and mode of it and of the folders above it: namei -l {others}",
        )
    package = _PACKAGES.get(program, program)
    raise HostError(f"{program} is not there", f"install it: apt install {package}")


def _failed(argv: tuple[str, ...], printed: str, first: str) -> HostError:
    """Return the error for a program that failed; its errno is known by the text printed."""
    hint = f"it was run as: {' '.join(argv)}"
    for number in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE):
        if os.strerror(number) in printed:
            hint = f"{linux.remedies.remedy(OSError(number, ''), hint, '/run')}; {hint}"
            break
    return HostError(f"{argv[0]}: {first}", hint)


class Child:
    """A program that is running. `wait` must be called once."""

    def __init__(self, argv: Sequence[str], text: str = "", lock: str = "") -> None:
        """Start ARGV with TEXT on its standard input. Raises `HostError` if it is missing.

        The lock on the file LOCK is taken first, and inherited by the program. So the next process
        that takes the lock knows that the program has ended, even if this process is killed.
        """
        program = require(argv[0])
        plain_text.lines(text)
        self.argv = tuple(argv)
        self._output = os.memfd_create("output", os.MFD_CLOEXEC)
        words = os.memfd_create("input", os.MFD_CLOEXEC)
        os.write(words, text.encode())
        os.lseek(words, 0, os.SEEK_SET)
        opened: tuple[int, ...] = (words, self._output, self._output)
        if lock:
            opened = (*opened, open_locked(lock))
        self._pid = os.posix_spawn(
            program,
            self.argv,
            ENVIRONMENT,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(opened)],
            setsigdef=[_SIGPIPE],
        )
        for fd in (words, *opened[3:]):
            os.close(fd)

    def wait(self) -> str:
        """Wait for the end; return stdout and stderr together, stripped of surrounding whitespace.

        Raises `HostError` if the program failed, took too long (see `waits.program`), or printed
        more than `_MOST_OUTPUT` bytes: output is never cut.
        """
        try:
            status = waits.program(self._pid, " ".join(self.argv))
        except BaseException:
            os.close(self._output)
            raise
        printed = self._printed()
        code = os.waitstatus_to_exitcode(status)
        if code:
            first = printed.splitlines()[0] if printed else f"exit status {code}"
            raise _failed(self.argv, printed, first)
        return printed

    def _printed(self) -> str:
        """Return all that was printed. Raises `HostError` for more than `_MOST_OUTPUT`."""
        try:
            size = os.lseek(self._output, 0, os.SEEK_END)
            if size > _MOST_OUTPUT:
                raise HostError(f"{self.argv[0]} printed {size} bytes", "that is no answer to read")
            os.lseek(self._output, 0, os.SEEK_SET)
            parts = iter(lambda: os.read(self._output, _OUTPUT), b"")
            return b"".join(parts).decode("utf-8", "replace").strip()
        finally:
            os.close(self._output)
