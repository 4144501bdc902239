"""The files that QEMU reads its configuration from: those of -readconfig, and qemu.conf."""

from __future__ import annotations

import mmap
import os
import stat

from qemu_netwrap import linux
from qemu_netwrap.qemu.option_groups import IMPLIED
from qemu_netwrap.qemu.readconfig import ConfigFile, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.linux.users import User
    from qemu_netwrap.qemu.command_line import CommandLine

_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
_MOST = 1 << 20  # bytes; a longer file is no configuration


def pipes(line: CommandLine, user: User | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the index of each -readconfig that reads from a pipe, and what it contains.

    It is read as USER would read it.
    """
    read = _reader(user)
    for option in line.named("readconfig"):
        try:
            mode = os.stat(option.value or "").st_mode
        except OSError:
            continue
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            data = read(option.value or "")
            if data is not None:
                yield option.at, data


def load(
    line: CommandLine, program: str, own: str, user: User | None = None
) -> dict[int, ConfigFile]:
    """Return the files that LINE has QEMU read, by the index of the option, read as USER.

    At -1 is OWN, which PROGRAM reads before its arguments if it was built to do so. A file that
    cannot be read is returned with that as its fault, since QEMU reports it.
    """
    read = _reader(user)
    found = {}
    if next(line.named("no-user-config"), None) is None:
        data = read(own)
        file = ConfigFile(own) if data is None else _parse(own, data)
        if _has_ours(file) and is_in(program, own):
            found[-1] = file
    for option in line.named("readconfig"):
        path = option.value or ""
        data = read(path)
        file = ConfigFile(path, fault="cannot be read") if data is None else _parse(path, data)
        found[option.at] = file
    return found


def _reader(user: User | None) -> Callable[[str], bytes | None]:
    """Return a function that reads a file as USER: QEMU must not see what only root may read.

    A descriptor that root passes on by its path is open already, and is read as root.
    """
    if user is None:
        return _read

    def read(path: str) -> bytes | None:
        with linux.users.Acting(None if path.startswith(_DESCRIPTORS) else user):
            return _read(path)

    return read


def _read(path: str) -> bytes | None:
    """Return the content of a file; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except (OSError, ValueError):
        return None


def _parse(path: str, data: bytes) -> ConfigFile:
    """Parse the content of the file PATH."""
    return parse(path, data.decode("utf-8", "surrogateescape"))


def _has_ours(file: ConfigFile) -> bool:
    """Whether a file has a section that concerns the network."""
    return any(section.group in IMPLIED for section in file.sections)


def is_in(program: str, path: str) -> bool:
    """Whether PROGRAM contains the text PATH, as a QEMU does that was built to use that file."""
    try:
        with open(program, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            return text.find(path.encode() + b"\0") >= 0
    except (OSError, ValueError):
        return False
