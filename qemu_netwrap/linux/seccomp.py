"""The seccomp filter of `--run-as`: no ioctl that types into a terminal, or sets a MAC.

A program on a terminal can put characters into its input (TIOCSTI), and on a virtual console paste
a selection (TIOCLINUX). The next reader of the terminal, such as root's shell, takes it as typed.
The holder of a tap can give it a MAC (SIOCSIFHWADDR), by which it gets another guest's frames.
The filter is classic BPF over `struct seccomp_data` (linux/seccomp.h).
"""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
SIOCSIFHWADDR = 0x8924
_EPERM = 1
_X32 = 0x40000000  # marks a system call of the x32 ABI, which has x86-64's audit number
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | _EPERM, 0x80000000
_NUMBER, _ARCH, _SECOND_ARGUMENT = 0, 4, 24


class Abi(Record):
    """A system call ABI: its AUDIT_ARCH value, and the numbers of some system calls."""

    audit: int
    bits: int
    ioctls: tuple[int, ...]
    keyctl: int


_X86 = (Abi(0xC000003E, 64, (16, 514), 250), Abi(0x40000003, 32, (54,), 288))
_ARM = (Abi(0xC00000B7, 64, (29,), 219), Abi(0x40000028, 32, (54,), 311))
# By the beginning of uname(2)'s machine: all ABIs that its kernel may offer.
_MACHINES = {
    "x86_64": _X86,
    "i686": _X86,
    "i586": _X86,
    "aarch64": _ARM,
    "arm": _ARM,
    "riscv64": (Abi(0xC00000F3, 64, (29,), 219), Abi(0x400000F3, 32, (29,), 219)),
    "loongarch64": (Abi(0xC0000102, 64, (29,), 219),),
    "ppc64le": (Abi(0xC0000015, 64, (54,), 271),),
    "s390x": (Abi(0x80000016, 64, (54,), 280), Abi(0x00000016, 32, (54,), 280)),
}


def abis(machine: str) -> tuple[Abi, ...]:
    """Return the ABIs of a MACHINE, as uname(2) calls it; none if it is not in the table."""
    return next((known for name, known in _MACHINES.items() if machine.startswith(name)), ())


def program(known: tuple[Abi, ...], byteorder: Literal["big", "little"]) -> bytes:
    """Return the filter, as an array of `struct sock_filter` in this byte order.

    It refuses the three ioctls with EPERM in each of the KNOWN ABIs, and kills a process that uses
    another ABI.
    """
    low_half = _SECOND_ARGUMENT + 4 * (byteorder == "big")  # the kernel uses only the lower 32 bits
    steps = [(_LOAD, 0, 0, _ARCH)]
    for abi in known:
        body = _refusal(abi, low_half)
        steps += [(_EQUAL, 0, len(body), abi.audit), *body]
    steps.append((_RETURN, 0, 0, _KILL))
    return b"".join(
        code.to_bytes(2, byteorder) + bytes((then, otherwise)) + value.to_bytes(4, byteorder)
        for code, then, otherwise, value in steps
    )


def _refusal(abi: Abi, argument: int) -> list[tuple[int, int, int, int]]:
    """Return the steps for one ABI, each the code, two jumps and a value; they end in a verdict."""
    body = [(_LOAD, 0, 0, _NUMBER)]
    if abi.audit == _X86[0].audit:
        body.append((_AND, 0, 0, ~_X32 & 0xFFFFFFFF))
    body += [(_EQUAL, len(abi.ioctls) - at, 0, number) for at, number in enumerate(abi.ioctls)]
    return [
        *body,
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, argument),
        (_EQUAL, 3, 0, SIOCSIFHWADDR),
        (_EQUAL, 2, 0, TIOCSTI),
        (_EQUAL, 1, 0, TIOCLINUX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
