"""The user of `--run-as`: becoming that user for good, or for opening files."""

from __future__ import annotations

import grp
import os
import pwd

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import syscalls
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# What a program of that user needs of the environment: terminal, language, display. The rest is
# dropped, since it may hold root's secrets. The last four are for systemd units (sd_listen_fds(3),
# sd_notify(3)).
KEPT = frozenset(
    "PATH TERM COLORTERM LANG LANGUAGE TZ DISPLAY WAYLAND_DISPLAY XAUTHORITY"
    " LISTEN_FDS LISTEN_PID LISTEN_FDNAMES NOTIFY_SOCKET".split()
)
KEPT_PREFIX = "LC_"


_STAFF = "staff"


class User(Record):
    """A user that QEMU is to run as."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    groups: tuple[int, ...]


def is_staff(gid: int) -> bool:
    """Whether GID is Debian's group `staff`, without members."""
    try:
        return not grp.getgrnam(_STAFF).gr_mem and grp.getgrnam(_STAFF).gr_gid == gid
    except KeyError:
        return False


def uid_of(name: str) -> int:
    """Return the uid of the user NAME. Raises `HostError` if there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise HostError(f"--run-as {name}: there is no such user", "see getent passwd") from None


def find(name: str) -> User:
    """Return the user NAME. Raises `HostError` if this process cannot become that user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise HostError(f"--run-as {name}: there is no such user", "see getent passwd") from None
    if os.geteuid() != 0 and set(os.getresuid()) != {found.pw_uid}:
        raise HostError(
            f"--run-as {name}: only root can become another user",
            f"sudo qemu-netwrap --run-as {name} -- qemu-system-x86_64 ...",
        )
    if syscalls.my_abi() is None:
        machine = os.uname().machine
        raise HostError(
            f"--run-as {name}: on {machine} QEMU cannot be kept from typing into this terminal",
            "start QEMU under that user's own login, or without --run-as",
        )
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
    return User(*found[:1], *found[2:4], found.pw_dir, found.pw_shell, groups)


def become(user: User) -> None:
    """Become USER for good: without a way back to root, or into root's terminal.

    If USER is root, nothing is dropped. Raises `HostError` or `OSError` if a step fails.
    """
    if user.uid == 0:
        return
    if os.geteuid() == 0:
        syscalls.drop_bounding_set()
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    syscalls.drop_capabilities()
    syscalls.join_new_keyring()
    syscalls.forbid_new_privileges()
    syscalls.forbid_typing()


def environment(user: User, keep: tuple[str, ...]) -> dict[str, str]:
    """Return the environment for a program of USER: `KEPT`, and the variables that KEEP names."""
    own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": user.shell}
    runtime = f"/run/user/{user.uid}"
    if os.path.isdir(runtime) and os.stat(runtime).st_uid == user.uid:
        own["XDG_RUNTIME_DIR"] = runtime
    if user.uid == 0:
        return {**os.environ, **own}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or name.startswith(KEPT_PREFIX)
    }
    named = {name: os.environ[name] for name in keep if name in os.environ}
    return {**kept, **own, **named}


class Acting:
    """A context in which files are opened as USER; None changes nothing."""

    def __init__(self, user: User | None) -> None:
        """Act as USER in the `with` block."""
        self._user = user if user is not None and os.geteuid() == 0 != user.uid else None
        self._groups: list[int] = []

    def __enter__(self) -> None:
        """Become USER, except for the real uid, by which root is restored."""
        if self._user is not None:
            self._groups = os.getgroups()
            os.setgroups(self._user.groups)
            os.setegid(self._user.gid)
            os.seteuid(self._user.uid)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Be root again."""
        if self._user is not None:
            os.seteuid(0)
            os.setegid(os.getgid())
            os.setgroups(self._groups)
