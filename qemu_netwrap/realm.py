"""Whose networks these are: the host's, which are root's, or those of a user without privilege.

The host's networks are in the network namespace that qemu-netwrap is called in, and their state in
/run/qemu-netwrap. A user's are in a network namespace of the user's own, in a user namespace
(linux.namespaces): one for each network namespace that the user calls from. root without
CAP_NET_ADMIN, in a container say, is such a user. Their state:

    $XDG_RUNTIME_DIR/qemu-netwrap/     or /run/user/UID, or /tmp/qemu-netwrap-UID
        BOOT-N/                        of the user's network namespace N: see state
        BOOT-M-U.realm                 N's, for the network namespace M and the user namespace U
                                       that the user calls from
        BOOT-M-U.lock                  taken to enter N, to make it and to give it up
        BOOT-N.way-out, .resolv.conf   the program that connects N with M, and its DNS

Who has made a user and a network namespace already (`unshare -Urn`) works in there as root does on
the host. If /run is another's there, the state is in the user's folder too, without a .realm.

N is made by the first run. It lives as long as a process is in it, keepers and dnsmasq, or as QEMU
has a tap of it open. It goes with the last run; what is left of it in files, `tidy` removes.
"""

from __future__ import annotations

import errno
import os
import stat

from qemu_netwrap import linux, record_text
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, proc
from qemu_netwrap.linux.proc import Process
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from qemu_netwrap.linux.namespaces import Namespaces

SYSTEM = "/run/qemu-netwrap"
_NAME = "qemu-netwrap"
_REALM, _LOCK = ".realm", ".lock"
_LOCK_TIMEOUT = 10.0  # seconds; who enters has the lock for some 50 ms, or 20 times that


class Place(Record):
    """A user's network namespace: its state, how it is found, and a process that is in it."""

    base: str  # the folder of its state
    inode: int
    member: Process


class _Known:
    """What `is_users`, `is_system` and `root` have found out, which only `enter` changes."""

    users: bool | None = None
    system: bool | None = None
    root = ""


def is_users() -> bool:
    """Whether this process can only have networks of the user's own, in a user namespace.

    Who has CAP_NET_ADMIN has the host's: root, unless that was taken from it. In a user namespace
    the network namespace must belong to that: in `unshare -Urn`, or in a user's realm.
    """
    if _Known.users is None:
        is_privileged = "net_admin" in proc.capabilities()
        is_here = is_privileged and (proc.maps_all_ids() or linux.namespaces.is_own_net())
        _Known.users = not is_here
    return _Known.users


def root() -> str:
    """Return the folder of all state that this process may write."""
    if not _Known.root:
        _Known.root = SYSTEM if is_system() and _has_run() else users_root()
    return _Known.root


def is_system() -> bool:
    """Whether this process works on the networks of where it was called, not on those of a realm.

    They are the host's, or those of a network namespace that the user has made.
    """
    if _Known.system is None:
        _Known.system = not (is_users() or _is_inside())
    return _Known.system


def stay() -> bool:
    """Have root of the host work there, also without CAP_NET_ADMIN; return whether this is root.

    For what is no network, PCI devices say: they are in no realm.
    """
    is_root = os.geteuid() == 0 and proc.maps_all_ids()
    if is_root:
        _Known.users, _Known.system, _Known.root = False, True, SYSTEM
    return is_root


def stay_with_runs() -> None:
    """`stay`, for a command, if the host has runs or networks and root has none in a realm."""
    has_none = is_users() and os.geteuid() == 0 and not os.path.lexists(root())
    if has_none and os.path.isdir(f"{SYSTEM}/{linux.host_facts.namespace()}"):
        stay()


def work_in(base: str) -> None:
    """Take the state BASE: it has the run that this process releases.

    The code that `tidy` needs is loaded now: it may be in the run's folder, which goes before.
    """
    _Known.root = os.path.dirname(base)
    _Known.system = _Known.root == SYSTEM or not _is_realms(base)
    if not _Known.system:
        for name in ("way_out", "polling"):
            __import__(f"qemu_netwrap.linux.{name}")


def _has_run() -> bool:
    """Whether /run is this machine's, or this container's: in a namespace of a user's it is not."""
    if proc.maps_all_ids():
        return True
    try:
        return os.stat(os.path.dirname(SYSTEM)).st_uid == os.geteuid()
    except OSError:
        return False


def _is_inside() -> bool:
    """Whether this process is root in the network namespace of a user's realm."""
    if os.geteuid() == 0 and proc.maps_all_ids():
        return False
    return _is_realms(f"{users_root()}/{linux.host_facts.namespace()}")


def _is_realms(base: str) -> bool:
    """Whether BASE is the state of a realm, or would be: a realm's file names it."""
    try:
        return any(place.base == base for _, place in _places(os.path.dirname(base)))
    except OSError:
        return False


def _places(folder: str) -> Iterator[tuple[str, Place]]:
    """Yield what the realms' files in FOLDER record, each with its path without the ending.

    A pipe or a device in a file's place is passed over: to read it may take for ever.
    """
    for name in files.listdir(folder):
        path = f"{folder}/{name.removesuffix(_REALM)}"
        if name.endswith(_REALM) and os.path.isfile(f"{folder}/{name}"):
            place = read(path)
            if place is not None:
                yield path, place


def users_root() -> str:
    """Return the folder of the state of a user's networks.

    A user who is logged in has a folder in /run (pam_systemd(8)), also where cron or su has not set
    the variable that names it.
    """
    uid = linux.namespaces.outer_uid()
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if folder.startswith("/") and _is_private(folder):
            return f"{folder.rstrip('/')}/{_NAME}"
    return f"/tmp/{_NAME}-{uid}"  # noqa: S108 - `state.prepare` checks whose it is


def _is_private(folder: str) -> bool:
    """Whether a folder is this user's, and only this user may write there."""
    try:
        found = os.stat(folder)
    except OSError:
        return False
    is_folder = stat.S_ISDIR(found.st_mode) and os.access(folder, os.W_OK | os.X_OK)
    return is_folder and found.st_uid == os.geteuid() and not found.st_mode & 0o022


class Realm:
    """A user's network namespace, taken or made from `__enter__` on, and locked until `__exit__`.

    Until a process has entered, which `entered` tells, there may be none in it to find it by.
    """

    def __init__(self) -> None:
        """Name the files of the realm for the network namespace of this process."""
        own = os.stat("/proc/self/ns/user").st_ino
        self.path = f"{root()}/{linux.host_facts.namespace()}-{own}"
        self.base = ""
        self._found: Namespaces | None = None
        self._lock, self._is_alone = -1, False
        self._member: Process | None = None

    def __enter__(self) -> Self:
        """Find the namespaces or make them. Raises `HostError`, if the host forbids it say."""
        try:
            if not self.find():
                self.be_alone()
        except BaseException:
            self.close()
            raise
        return self

    def be_alone(self) -> None:
        """Lock it alone, to change what all that enter it use.

        Another process may have made it, or given it up, before: it is found anew, or made.
        """
        if not self._is_alone:
            self.close()
            if not self.find(shared=False):
                self._make()

    def find(self, *, shared: bool = True) -> bool:
        """Find the namespaces, if they exist; return whether they do. They are locked in any case.

        With SHARED others may enter at the same time, but none make them or give them up.
        Raises `HostError` if it is recorded in no readable way where they are.
        """
        self._lock = files.open_locked(f"{self.path}{_LOCK}", shared=shared)
        self._is_alone = not shared
        place = read(self.path)
        if place is None and os.path.exists(f"{self.path}{_REALM}"):
            raise HostError(
                f"{self.path}{_REALM} is damaged: it is not known where this user's networks are",
                f"end the guests that use them; then remove {root()}",
            )
        if place is not None:
            self.base = place.base
            self._found = _of_member(place) or _searched(place)
            self._member = place.member
        return self._found is not None

    def find_alone(self) -> bool:
        """Find the namespaces, locked alone; return whether they exist.

        If not, what is left of them is removed, the lock too. Raises `HostError` as `find` does.
        """
        if self.find(shared=False):
            return True
        if self.base and not _is_in_use(self.base):
            give_up(self.path, self.base)
        self.drop()
        return False

    @property
    def namespaces(self) -> Namespaces:
        """The namespaces, once they are found or made."""
        if self._found is None:
            raise ValueError(self.path)
        return self._found

    def _make(self) -> None:
        """Make the namespaces, and remove what is left of others, which are gone."""
        if self.base:
            if _is_in_use(self.base):
                raise HostError(
                    f"{self.base}: runs live whose network namespace cannot be entered",
                    "end them (ps -u $USER), then try again",
                )
            give_up(self.path, self.base)
        try:
            self._found = linux.namespaces.make()
        except OSError as error:
            self.drop()
            raise _refusal(error) from error
        self.base = f"{os.path.dirname(self.path)}/{_cookie(self.namespaces)}"
        self._write(Process(0, ""))

    def _write(self, member: Process) -> None:
        """Record the namespaces, with a process that is in them."""
        fields = {"base": self.base, "inode": str(self.namespaces.inode), "pid": str(member.pid)}
        files.write(
            f"{self.path}{_REALM}",
            record_text.write("realm", {**fields, "started": member.started}) + "\n",
        )

    def enter(self) -> None:
        """Enter the namespaces; from now on what concerns the network concerns theirs."""
        found = root()
        self.namespaces.enter()
        _Known.users, _Known.system, _Known.root = False, False, found

    def entered(self) -> None:
        """Let others enter: this process is in the namespaces, and stays for a run's whole life."""
        if self._member is None or not proc.lives(self._member):
            self._write(proc.of(os.getpid()))
        self.close()

    def drop(self) -> None:
        """Remove the lock that this process has: there is no realm."""
        _remove_scratch(self.path)
        files.remove(f"{self.path}{_LOCK}")
        self.close()
        files.remove_empty([os.path.dirname(self.path)])

    def close(self) -> None:
        """Close what this process has open of the realm; another one may hold it still."""
        if self._lock >= 0:
            os.close(self._lock)
        if self._found is not None:
            self._found.close()
        self._lock, self._found = -1, None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; remove what has no use."""
        self.close()
        if self.base:
            tidy(self.base)


def step_in(make: Callable[[Realm], None] | None = None, *, looks_out: bool = True) -> bool:
    """Enter the user's realm for a command, if there is one; return whether there is.

    With MAKE it is made, and left to what the command starts in it; MAKE is called with it before
    it is entered. Without LOOKS_OUT the command
    sees no more of the processes outside (linux.outside). The caller has checked the folder of the
    state, if there is one (`state.prepare`). Raises `HostError`.
    """
    if not (make is not None or os.path.lexists(root())):
        return False
    if looks_out:
        linux.outside.station()
    found = Realm()
    if make is not None:
        found.__enter__()
        make(found)
    elif not found.find_alone():
        return False
    found.enter()
    found.close()
    return True


def is_there() -> bool:
    """Whether the user's realm exists. What is left of one that has gone is removed.

    Not while the lock of one of its runs is held. Raises `HostError` as `Realm.find` does.
    """
    found = Realm()
    is_found = found.find_alone()
    found.close()
    return is_found


def look_in() -> None:
    """Enter the user's realm for a command that only looks; one of its own if there is none yet."""
    if not step_in():
        found = root()
        try:
            linux.namespaces.enter_new()
        except OSError as error:
            raise _refusal(error) from error
        _Known.users, _Known.system, _Known.root = False, False, found


def read(path: str) -> Place | None:
    """Return the user's network namespace for that of PATH; None if none is recorded."""
    try:
        fields = record_text.read(files.read(f"{path}{_REALM}").rstrip("\n"))[1]
        member = Process(int(fields["pid"]), fields["started"])
        return Place(fields["base"], int(fields["inode"]), member)
    except (KeyError, ValueError):
        return None


def _of_member(place: Place) -> Namespaces | None:
    """Return the namespaces by the process that was recorded as one in them."""
    if not place.member.pid or not proc.lives(place.member):
        return None
    return linux.namespaces.of_process(place.member.pid, place.inode)


def _searched(place: Place) -> Namespaces | None:
    """Return the namespaces by any process that is in them, or has a tap of theirs open.

    The number of an inode is given anew: what was found must be what was recorded.
    """
    found = next(_with_inode(place.inode), None) or next(_with_tap(place.inode), None)
    if found is None or _cookie(found) == os.path.basename(place.base):
        return found
    found.close()
    return None


def _with_inode(inode: int) -> Iterator[Namespaces]:
    """Yield the network namespace with an inode number, for each process that is in it."""
    for pid in proc.pids():
        found = linux.namespaces.of_process(pid, inode)
        if found is not None:
            yield found


def _with_tap(inode: int) -> Iterator[Namespaces]:
    """Yield the network namespace with an inode number, for each process with a tap of it."""
    for pid in proc.pids():
        for net in linux.foreign_fds.net_of_taps(pid):
            if os.fstat(net).st_ino == inode:
                yield linux.namespaces.of_net(net)
            else:
                os.close(net)


def _cookie(found: Namespaces) -> str:
    """Return the name of a network namespace, which only a process that is in it can ask for."""
    return linux.namespaces.inside(found, linux.host_facts.namespace)


def tidy(base: str) -> None:
    """Give the realm with the state BASE up if that has gone: its last run has."""
    folder = os.path.dirname(base)
    for path, place in _places(folder):
        if place.base != base or os.path.exists(base):
            continue
        lock = _locked(path)
        if lock < 0:
            continue
        try:
            if not os.path.exists(base) and read(path) == place:
                give_up(path, base)
            if not os.path.lexists(f"{path}{_REALM}"):
                # Another process may have given it up and removed the lock: this one made it anew.
                files.remove(f"{path}{_LOCK}")
        finally:
            os.close(lock)
    files.remove_empty([folder])


def _is_in_use(base: str) -> bool:
    """Whether a run of a realm lives, although the realm was not found."""
    runs = (f"{base}/runs/{name}" for name in files.listdir(f"{base}/runs"))
    return any(files.is_locked(f"{run}/{name}") for run in runs for name in ("lock", "keeper"))


def _locked(path: str) -> int:
    """Take the lock of a realm; return its descriptor, -1 if another process has it for long.

    That is a run which is entering, and will tidy up itself. A command that only looks, as `ps`,
    does not, nor does a child of a run that is gone already: they have it for a moment, which on a
    machine with much to do is long.
    """
    found = [-1]

    def is_ours() -> bool:
        try:
            found[0] = files.open_locked(f"{path}{_LOCK}", wait=False)
        except BlockingIOError:
            return False
        return True

    linux.polling.wait_until(is_ours, _LOCK_TIMEOUT)
    return found[0]


def give_up(path: str, base: str) -> None:
    """End the way out of a realm, and remove its files; the caller has its lock."""
    linux.way_out.end(way_out_of(base))
    files.remove_folder(base)
    for name in (way_out_of(base), resolv_conf_of(base), f"{path}{_REALM}"):
        files.remove(name)
    _remove_scratch(path)
    _remove_scratch(base)


def _remove_scratch(path: str) -> None:
    """Remove what a crash left of writing the files of a realm, which has PATH before their dot."""
    folder, _, name = path.rpartition("/")
    files.remove_scratch(folder, name)


def way_out_of(base: str) -> str:
    """Return the file of the program that connects the realm with the state BASE with the host."""
    return f"{base}.way-out"


def resolv_conf_of(base: str) -> str:
    """Return the file with the name servers that guests of the realm with the state BASE reach."""
    return f"{base}.resolv.conf"


def has_way_out(base: str) -> bool:
    """Whether a program was started that leads out of the realm with the state BASE."""
    return bool(files.read(resolv_conf_of(base)))


def _refusal(error: OSError) -> HostError:
    """Return the error for a host that gives a user no namespaces."""
    if error.errno == errno.EINTR:
        return HostError(f"a network namespace of this user's own: {error.strerror}", "try again")
    return HostError(
        f"a network namespace of this user's own: {error.strerror}",
        str(linux.remedies.user_namespace(linux.remedies.standing())),
    )
