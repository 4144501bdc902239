"""System calls that Python has no functions for, by the C library.

`_ctypes` is the C half of `ctypes`, whose import costs a launch two milliseconds more.
"""

from __future__ import annotations

import _ctypes
import os
import sys

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qemu_netwrap.linux.seccomp import Abi

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_SECCOMP = 24, 38, 47, 22
_PR_SET_DUMPABLE = 4
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_KEYCTL_GET_KEYRING_ID, _KEYCTL_JOIN_SESSION_KEYRING = 0, 1
_KEY_SPEC_SESSION_KEYRING = -3
_CAPABILITY_VERSION_3 = 0x20080522
_EPERM, _EINVAL, _ENOSYS = 1, 22, 38
_STEP = 8  # sizeof(struct sock_filter)


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg] # noqa: SLF001 - as ctypes does
    _type_ = "l"


class _Short(_ctypes._SimpleCData):  # type: ignore[type-arg] # noqa: SLF001 - as ctypes does
    _type_ = "H"


class _Bytes(_ctypes._SimpleCData):  # type: ignore[type-arg] # noqa: SLF001 - as ctypes does
    _type_ = "z"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _Program(_ctypes.Structure):
    """`struct sock_fprog`, linux/filter.h."""

    _fields_ = (("length", _Short), ("steps", _Bytes))


def my_abi() -> Abi | None:
    """Return this process's system call ABI; None on a machine that `seccomp` does not know."""
    bits = 64 if sys.maxsize > 1 << 32 else 32
    known = linux.seccomp.abis(os.uname().machine)
    return next((abi for abi in known if abi.bits == bits), None)


def drop_bounding_set() -> None:
    """Empty the capability bounding set: no program that is executed can bring one back.

    Root without CAP_SETPCAP may not do that; no_new_privs has the same effect on programs.
    """
    number = 0
    while not (failed := _call("prctl", _PR_CAPBSET_DROP, number)):
        number += 1
    if failed not in (_EINVAL, _EPERM):  # EINVAL: the first number that the kernel does not know
        raise _refused("prctl(PR_CAPBSET_DROP)", failed)


def drop_capabilities() -> None:
    """Give up every capability: ambient, inheritable, permitted and effective."""
    failed = _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if failed not in (0, _EINVAL):  # EINVAL: a kernel before 4.3, without ambient ones
        raise _refused("prctl(PR_CAP_AMBIENT)", failed)
    header = _CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
    if failed := _call("capset", header, bytes(24)):
        raise _refused("capset", failed)


def join_new_keyring() -> None:
    """Replace this process's session keyring by a new and empty one."""
    abi = my_abi()
    if abi is None:
        return
    failed = _call("syscall", abi.keyctl, _KEYCTL_JOIN_SESSION_KEYRING, 0)
    # A kernel without keys, or a container that forbids them: there are none to read then.
    if failed == _EPERM:
        get = (_KEYCTL_GET_KEYRING_ID, _KEY_SPEC_SESSION_KEYRING, 0)
        failed = 0 if _call("syscall", abi.keyctl, *get) == _EPERM else _EPERM
    if failed not in (0, _ENOSYS):
        raise _refused("keyctl(KEYCTL_JOIN_SESSION_KEYRING)", failed)


def forbid_new_privileges() -> None:
    """Set no_new_privs: execve(2) grants nothing any more by setuid or file capabilities."""
    if failed := _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _refused("prctl(PR_SET_NO_NEW_PRIVS)", failed)


def forbid_typing() -> None:
    """Install the filter of `seccomp` in this process, which all its children inherit."""
    steps = linux.seccomp.program(linux.seccomp.abis(os.uname().machine), sys.byteorder)
    filters = _Program(len(steps) // _STEP, steps)
    by_reference = _ctypes.byref(filters)
    if failed := _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, by_reference, 0, 0):
        raise _refused("prctl(PR_SET_SECCOMP)", failed)


def add_filter(steps: bytes) -> None:
    """Install a seccomp filter, an array of `sock_filter`, in this process. Raises `OSError`."""
    filters = _Program(len(steps) // _STEP, steps)
    by_reference = _ctypes.byref(filters)
    _raise(_call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, by_reference, 0, 0))


def unshare(flags: int) -> None:
    """Give this process new namespaces, named by FLAGS (unshare(2)). Raises `OSError`."""
    _raise(_call("unshare", flags))


def set_namespace(fd: int, flag: int) -> None:
    """Move this process into the namespace FD, of the type FLAG (setns(2)). Raises `OSError`."""
    _raise(_call("setns", fd, flag))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Put SOURCE, or a file system of a KIND, on TARGET (mount(2)). Raises `OSError`."""
    words = (source.encode(), os.fsencode(target), kind.encode())
    _raise(_call("mount", *words, flags, data.encode()), target)


def unmount(target: str, flags: int) -> None:
    """Remove what is mounted on TARGET (umount2(2)). Raises `OSError`."""
    _raise(_call("umount2", os.fsencode(target), flags), target)


def pivot_root(root: str, old: str) -> None:
    """Make the mount ROOT the root of this process, and move the former to OLD (pivot_root(2)).

    Raises `OSError`.
    """
    _raise(_call("pivot_root", os.fsencode(root), os.fsencode(old)), root)


def make_dumpable() -> None:
    """Give this process its own files in /proc again: the kernel takes them when it gains rights.

    PR_SET_DUMPABLE in prctl(2); the next execve(2) would do the same. Raises `OSError`.
    """
    _raise(_call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0))


def _raise(number: int, where: str = "") -> None:
    """Raise the `OSError` of an errno, at a file WHERE; do nothing for 0."""
    if number:
        raise OSError(number, os.strerror(number), where or None)


def _call(name: str, *args: Any) -> int:
    """Call a function of the C library that returns -1 for a failure; return its errno, or 0."""
    library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type] # None is the program itself
    function = _Function(_ctypes.dlsym(library, name))
    done = function(*(_Long(arg) if isinstance(arg, int) else arg for arg in args))
    # The result is an int: in a long only the lower half of -1 is set.
    return _ctypes.get_errno() if done & 0xFFFFFFFF == 0xFFFFFFFF else 0


def _refused(what: str, number: int) -> HostError:
    """Return the error for a call that the kernel refuses."""
    return HostError(
        f"--run-as: {what}: {os.strerror(number)}",
        "this kernel or container cannot confine QEMU; without --run-as it runs as the caller",
    )
