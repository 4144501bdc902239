"""A user namespace with a network namespace in it: how an ordinary user gets networks.

In a user namespace of their own, users have every capability over what belongs to it, a network
namespace say, and none over the host (user_namespaces(7)). One id is mapped, the user's to root's:
that takes neither newuidmap(1) nor subordinate ids.

Namespaces are held by descriptors here. They live as long as a process is in them, has them open,
or has a tap in them open.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os

from qemu_netwrap import linux
from qemu_netwrap.linux import proc
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_NS_GET_USERNS = 0xB701  # linux/nsfs.h
_KINDS = ("user", "net")
_MESSAGE = 4096
_FIELDS = 3  # of a row of uid_map


class Namespaces(Record):
    """Descriptors of a user namespace, and of a network namespace that belongs to it."""

    user: int
    net: int

    def enter(self) -> None:
        """Move this process into both, where it has all capabilities. Raises `OSError`."""
        self.enter_user()
        linux.syscalls.set_namespace(self.net, _CLONE_NEWNET)
        linux.syscalls.make_dumpable()

    def enter_user(self) -> None:
        """Move this process into the user namespace alone. Raises `OSError`."""
        linux.syscalls.set_namespace(self.user, _CLONE_NEWUSER)

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.user)
        os.close(self.net)

    @property
    def inode(self) -> int:
        """The inode number of the network namespace, by which `of_process` finds it."""
        return os.fstat(self.net).st_ino


def of_process(pid: int | str = "self", inode: int = 0) -> Namespaces | None:
    """Return the namespaces that a process is in; None if they are not shown to this user.

    Also None if the network namespace is not the one with the number INODE, unless that is 0.
    """
    fds: list[int] = []
    try:
        for kind in _KINDS:
            fds += [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)]
        if not inode or os.fstat(fds[1]).st_ino == inode:
            return Namespaces(*fds)
    except OSError:
        pass
    for fd in fds:
        os.close(fd)
    return None


def of_net(net: int) -> Namespaces:
    """Return a network namespace, open as NET, with the user namespace that it belongs to.

    Raises `OSError`: EPERM if that one is not below the user namespace of this process.
    """
    user = fcntl.ioctl(net, _NS_GET_USERNS)
    os.set_inheritable(user, False)  # noqa: FBT003 - has no name
    return Namespaces(user, net)


def is_own_net() -> bool:
    """Whether this process's network namespace belongs to its user namespace.

    Only there do its capabilities, if it has any, count for the network.
    """
    net = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        user = fcntl.ioctl(net, _NS_GET_USERNS)
    except OSError:
        return False  # EPERM: it belongs to a user namespace above
    finally:
        os.close(net)
    try:
        return os.path.samestat(os.fstat(user), os.stat("/proc/self/ns/user"))
    finally:
        os.close(user)


def outer_uid() -> int:
    """Return this user's uid, in a user namespace that maps one id the one outside of it."""
    uid = os.geteuid()
    rows = [row for row in proc.mapped_ids("uid_map") if len(row) == _FIELDS]
    return next((int(row[1]) for row in rows if row[0] == str(uid) and row[2] == "1"), uid)


def make() -> Namespaces:
    """Make both namespaces, with the loopback interface up; no process is left in them.

    A child makes them and sends their descriptors. Raises the `OSError` of the step that failed,
    with EINTR if the child was killed.
    """
    ours, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    child = os.fork()
    if child == 0:
        _send(its)
    its.close()
    try:
        data, ancillary, _, _ = ours.recvmsg(_MESSAGE, _socket.CMSG_SPACE(8))
    finally:
        ours.close()
        os.waitpid(child, 0)
    fds = [int.from_bytes(raw[at : at + 4], "little") for *_, raw in ancillary for at in (0, 4)]
    if not fds:
        if not data:
            raise OSError(errno.EINTR, "the process that makes it was killed")
        number, _, where = data.decode().partition(" ")
        raise OSError(int(number or 0), os.strerror(int(number or 0)), where or "unshare")
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - has no name
    return Namespaces(*fds)


def inside(found: Namespaces, ask: Callable[[], str]) -> str:
    """Return what ASK returns in a child that has entered namespaces; empty if that fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found.enter()
            os.write(writing, ask().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


def _send(its: _socket.socket) -> None:
    """Make the namespaces and send them, or the error; end this process."""
    try:
        enter_new()
        fds = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in _KINDS]
        raw = b"".join(fd.to_bytes(4, "little") for fd in fds)
        its.sendmsg([b"made"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)])
    except OSError as error:
        its.send(f"{error.errno} {error.filename or ''}".encode())
    finally:
        os._exit(0)


def enter_new() -> None:
    """Give this process both namespaces anew. Raises `OSError`."""
    uid, gid = os.geteuid(), os.getegid()
    linux.syscalls.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    linux.syscalls.make_dumpable()
    # Without `deny` gid_map cannot be written: who drops a group could reach what it is denied.
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    rtnl = linux.netlink.links.Rtnl()
    lo = rtnl.link("lo")
    if lo is not None:
        rtnl.set_up(lo.index, lo.mtu, 0)
    rtnl.close()
