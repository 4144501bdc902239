"""Planning takes work in proportion to the NICs: counted in calls of functions, not in time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from qemu_netwrap.model.network import Config
from qemu_netwrap.model.run import TapDescriptors
from qemu_netwrap.qemu import command_line
from qemu_netwrap.qemu.network_options import interpret
from qemu_netwrap.runtime import plan

if TYPE_CHECKING:
    from types import FrameType

FEW: Final = 50
TIMES: Final = 4


def pairs(count: int) -> list[str]:
    """NICs by -netdev and -device."""
    each = ("-netdev", "nat,id=n{0}", "-device", "virtio-net-pci,netdev=n{0},id=d{0}")
    return [word.format(n) for n in range(count) for word in each]


def set_later(count: int) -> list[str]:
    """The same with names of their own, and changed by -set."""
    each = ("-netdev", "tap,id=n{0},ifname=vm{0}", "-device", "e1000,netdev=n{0},id=d{0}")
    words_ = [word.format(n) for n in range(count) for word in each]
    return words_ + [w for n in range(count) for w in ("-set", f"netdev.n{n}.network=nat")]


def patterns(count: int) -> list[str]:
    """Names that the kernel would number."""
    each = ("-netdev", "nat,id=n{0},ifname=v{0}x%d", "-device", "e1000,netdev=n{0}")
    return [word.format(n) for n in range(count) for word in each]


def forwards(count: int) -> list[str]:
    """One NIC with many ports of the host."""
    rules = ",".join(f"hostfwd=tcp::{1024 + n}-:22" for n in range(count))
    return ["-nic", f"nat,{rules}"]


def hubs(count: int) -> list[str]:
    """Hubs with a tap and a NIC each."""
    each = (
        *("-netdev", "nat,id=n{0}", "-netdev", "hubport,id=p{0},hubid={0},netdev=n{0}"),
        *("-netdev", "hubport,id=q{0},hubid={0}", "-device", "e1000,netdev=q{0}"),
    )
    return [word.format(n) for n in range(count) for word in each]


def steps(argv: list[str]) -> int:
    """Return how many calls of Python functions, and lines in them, planning takes."""
    count = 0

    def trace(frame: FrameType, event: str, what: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type] # it returns itself
    try:
        line = command_line.parse(["qemu-system-x86_64", *argv])
        reading = interpret(line)
        assert reading is not None
        made = plan.make(reading, Config(), plan.Facts("4242", "machine"))
        grants = {
            p.nic.tap: TapDescriptors(
                ("9",), macs=tuple(mac or "52:54:00:00:00:01" for mac in p.nic.macs)
            )
            for p in made.nics
        }
        assert made.wanted.networks
        made.rewritten(grants).words({})
    finally:
        sys.settrace(before)
    assert made.nics
    return count


@pytest.mark.parametrize("kind", [pairs, set_later, patterns, forwards, hubs])
def test_so_many_times_the_nics_are_so_many_times_the_steps(kind: object) -> None:
    assert callable(kind)
    few, many = steps(kind(FEW)), steps(kind(FEW * TIMES))
    assert many < few * TIMES * 1.2
