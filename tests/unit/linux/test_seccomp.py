"""The filter of `--run-as` on every machine it is made for, by an interpreter of classic BPF."""

from __future__ import annotations

import errno
import struct
from typing import Final, Literal

import pytest

from qemu_netwrap.linux import seccomp

ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000 | errno.EPERM
KILL: Final = 0x80000000
X32: Final = 0x40000000
TCGETS: Final = 0x5401
MACHINES: Final = (
    "x86_64",
    "i686",
    "aarch64",
    "armv7l",
    "riscv64",
    "loongarch64",
    "ppc64le",
    "s390x",
)


def verdict(machine: str, audit: int, number: int, request: int) -> int:
    """Return what the filter says of a system call with REQUEST as its second argument."""
    order: Literal["big", "little"] = "big" if machine == "s390x" else "little"
    mark = ">" if order == "big" else "<"
    data = struct.pack(f"{mark}iIQ6Q", number, audit, 0, 0, request, *[0] * 4)
    steps = list(struct.iter_unpack(f"{mark}HBBI", seccomp.program(seccomp.abis(machine), order)))
    at = held = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (held,) = struct.unpack_from(f"{mark}I", data, value)
            case 0x54:
                held &= value
            case 0x15:
                at += then if held == value else otherwise
            case 0x06:
                return int(value)
            case _:
                pytest.fail(f"code {code:#x} is none that the filter uses")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_every_way_to_call(machine: str, upper: int) -> None:
    assert seccomp.abis(machine)
    for abi in seccomp.abis(machine):
        for number in abi.ioctls:
            for request in (seccomp.TIOCSTI, seccomp.TIOCLINUX, seccomp.SIOCSIFHWADDR):
                assert verdict(machine, abi.audit, number, request | upper) == REFUSE
            assert verdict(machine, abi.audit, number, TCGETS | upper) == ALLOW
            assert verdict(machine, abi.audit, number + 1, seccomp.TIOCSTI | upper) == ALLOW
        assert verdict(machine, abi.audit ^ 1, abi.ioctls[0], TCGETS) == KILL


def test_x32() -> None:
    audit = seccomp.abis("x86_64")[0].audit
    for number in (16, 514):
        assert verdict("x86_64", audit, X32 | number, seccomp.TIOCSTI) == REFUSE
        assert verdict("x86_64", audit, X32 | number, TCGETS) == ALLOW


def test_a_machine_that_is_not_known() -> None:
    assert seccomp.abis("vax") == ()
