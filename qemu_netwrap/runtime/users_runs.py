"""The runs and networks of all users, for root: `ps --all`.

A user's state is written by that user, so root does not read it. A process that has become the user
for good does, as that user's own `ps --json`, and root reads what it prints as it would read any
text of a stranger's: so much and so long, with each value checked, and no character for a terminal
to act on. Users are found by the names of folders alone: to look into one may already hang root,
as where a user has mounted a file system of their own.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pwd
import resource
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from qemu_netwrap import printable
from qemu_netwrap.linux import files, users
from qemu_netwrap.model.run import DeviceInfo, PortForward
from qemu_netwrap.record import Record
from qemu_netwrap.runtime.status import Lease, NetworkStatus, NicStatus, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[Any], Any]

_RUNTIME, _TEMPORARY, _PREFIX = "/run/user", "/tmp", "qemu-netwrap-"  # noqa: S108 - see realm
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# For one user: bytes, seconds, bytes of memory, entries of a list, characters of a word and a text.
_ANSWER, _PATIENCE, _MEMORY = 4 << 20, 10.0, 1 << 30
_ENTRIES, _WORD, _TEXT = 1000, 256, 4096
_LARGEST = 1 << 63


class Look(Record):
    """What one user has, or why that is not known."""

    user: str
    runs: tuple[RunStatus, ...] = ()
    networks: tuple[NetworkStatus, ...] = ()
    fault: str = ""


def looks() -> list[Look]:
    """Return what each user has who has an account and a folder for state. The caller is root."""
    return [look for look in map(_look, _accounts()) if look.runs or look.networks or look.fault]


def _accounts() -> list[pwd.struct_passwd]:
    """Return the accounts of the users who may have state, in the order of their ids.

    Without an account are ids of user namespaces, of which one user may have thousands.
    """
    names = [name for name in files.listdir(_RUNTIME) if name.isdecimal()]
    names += [n.removeprefix(_PREFIX) for n in files.listdir(_TEMPORARY) if n.startswith(_PREFIX)]
    found = []
    for uid in sorted({int(n) for n in names if n.isascii() and n.isdecimal() and len(n) <= 10}):
        with contextlib.suppress(KeyError, OverflowError):
            found += [pwd.getpwuid(uid)] if uid else []
    return found


def _look(account: pwd.struct_passwd) -> Look:
    """Return what a user has."""
    name = printable.line(account.pw_name)
    try:
        return read(name, _asked(account))
    except subprocess.SubprocessError:
        return Look(name, fault="nothing can run as that user")
    except (ValueError, RecursionError):
        return Look(name, fault="that user's state gives no answer")


def _asked(account: pwd.struct_passwd) -> bytes:
    """Return what `ps --json` prints as a user. Raises `ValueError` if it is too slow or long."""
    groups = tuple(os.getgrouplist(account.pw_name, account.pw_gid))
    user = users.User(*account[:1], *account[2:4], account.pw_dir, account.pw_shell, groups)

    def become() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        users.become(user)

    own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "PATH": _PATH}
    null = subprocess.DEVNULL
    asked = subprocess.Popen(
        [sys.executable, "-I", os.path.abspath(sys.argv[0]), "ps", "--json"],
        bufsize=0,
        cwd="/",
        env=own,
        stdin=null,
        stdout=subprocess.PIPE,
        stderr=null,
        start_new_session=True,
        preexec_fn=become,  # noqa: PLW1509 - this process has one thread
    )
    with asked:
        try:
            return _bounded(asked.stdout.fileno())  # type: ignore[union-attr] # it is a pipe
        finally:
            os.killpg(asked.pid, signal.SIGKILL)


def _bounded(fd: int) -> bytes:
    """Return all that comes from a pipe. Raises `ValueError` if it is too much, or too slow."""
    deadline = time.monotonic() + _PATIENCE
    found = bytearray()
    while len(found) <= _ANSWER:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise ValueError("too slow")
        data = os.read(fd, 1 << 16)
        if not data:
            return bytes(found)
        found += data
    raise ValueError("too long")


def read(user: str, answer: bytes) -> Look:
    """Return what the output of a user's `ps --json` says. Raises `ValueError`, `RecursionError`.

    Strings come as one line of printable characters.
    """
    data = _table(json.loads(answer.decode()))
    runs, networks = _list(_record(RunStatus)), _list(_record(NetworkStatus))
    return Look(user, runs(data.get("runs")), networks(data.get("networks")))


def _table(value: object) -> dict[str, Any]:
    """Return a dict."""
    if not isinstance(value, dict):
        raise ValueError("no table")  # noqa: TRY004 - one error for all that is wrong
    return value


def _string(longest: int) -> Reader:
    """Return a reader of strings, which are cut to LONGEST characters."""

    def read_string(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("no string")  # noqa: TRY004
        return printable.line(value[:longest])

    return read_string


def _whole(value: object) -> int:
    """Return an int that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError("no whole number")
    return value


def _real(value: object) -> float:
    """Return a float that is finite and not negative."""
    if isinstance(value, float) and math.isfinite(value) and 0 <= value < _LARGEST:
        return value
    return float(_whole(value))


def _flag(value: object) -> bool:
    """Return a bool."""
    if not isinstance(value, bool):
        raise ValueError("no bool")  # noqa: TRY004
    return value


def _list(inner: Reader) -> Reader:
    """Return a reader of lists, of which only so many entries count."""

    def read_list(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("no list")  # noqa: TRY004
        return tuple(map(inner, value[:_ENTRIES]))

    return read_list


def _record(kind: type[Record]) -> Reader:
    """Return a reader of tables that have all fields of a KIND of record."""

    def read_record(value: object) -> Record:
        table = _table(value)
        known = kind.__annotations__
        return kind(*(_READERS[known[name]](table.get(name)) for name in kind.fields))

    return read_record


# By the fields' annotations.
_READERS: dict[str, Reader] = {
    "str": _string(_WORD),
    "int": _whole,
    "float": _real,
    "bool": _flag,
    "tuple[str, ...]": _list(_string(_TEXT)),
    "tuple[NicStatus, ...]": _list(_record(NicStatus)),
    "tuple[DeviceInfo, ...]": _list(_record(DeviceInfo)),
    "tuple[PortForward, ...]": _list(_record(PortForward)),
    "tuple[Lease, ...]": _list(_record(Lease)),
}
