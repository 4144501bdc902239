"""A seccomp filter by which setgroups(2) succeeds, and changes nothing.

In a user namespace that maps one id it is denied (user_namespaces(7)), so programs that drop
privileges, such as tcpdump, end there. What they would give up they never had: the groups are
this user's own.
"""

from __future__ import annotations

import os
import sys

from qemu_netwrap.linux import syscalls

# asm/unistd.h of each machine, by its name from uname(2).
_NUMBERS = {
    "x86_64": 116,
    "aarch64": 159,
    "riscv64": 159,
    "loongarch64": 159,
    "ppc64le": 81,
    "s390x": 206,
}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_ALLOW, _DONE = 0x7FFF0000, 0x00050000  # linux/seccomp.h: SECCOMP_RET_ERRNO with no error
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data


def pretend() -> None:
    """Install the filter in this process, which all its children inherit.

    It needs CAP_SYS_ADMIN in the user namespace. On a machine that is not in the table nothing is
    done. Raises `OSError`.
    """
    abi, number = syscalls.my_abi(), _NUMBERS.get(os.uname().machine)
    if abi is not None and abi.bits == 64 and number is not None:
        syscalls.add_filter(program(abi.audit, number))


def program(audit: int, number: int) -> bytes:
    """Return the filter for the ABI with an AUDIT_ARCH value, as an array of `sock_filter`."""
    steps = (
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, 3, audit),  # any other ABI goes on as it is
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _DONE),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(
        code.to_bytes(2, sys.byteorder)
        + bytes((then, otherwise))
        + value.to_bytes(4, sys.byteorder)
        for code, then, otherwise, value in steps
    )
