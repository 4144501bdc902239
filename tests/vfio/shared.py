"""What the tests of this folder share: the machine's NICs, launching in it, looking into it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from lab.tool import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.nested import Job, Nested

_PATIENCE = 600

IGB, E1000E, VIRTIO = "0000:01:00.0", "0000:03:00.0", "0000:04:00.0"
TWINS = ("0000:02:00.0", "0000:02:00.1")  # one card, one group
IOMMU = "intel-iommu,intremap=on,caching-mode=on"
QEMU = (
    *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "64", "-nodefaults"),
    *("-display", "none", "-monitor", "none", "-S"),
)


# The same for a guest that boots.
BOOTING = (*QEMU[: QEMU.index("-S")], "-m", "128")


def nic(number: int, device: str, *more: str, port: str = "") -> list[str]:
    """Return the words for a NIC behind a root port of its own, which has PORT's properties."""
    words = ["-device", f"pcie-root-port,id=rp{number},chassis={number},slot={number}{port}"]
    for at, each in enumerate((device, *more)):
        name = f"n{number}{at}"
        words += ["-netdev", f"user,id={name},restrict=on,ipv6=off"]
        words += ["-device", f"{each},bus=rp{number},netdev={name}"]
    return words


# An SR-IOV NIC, a card with two NICs in one group, and two more NICs.
DEVICES = (
    *("-device", IOMMU),
    *nic(1, "igb"),
    *nic(2, "e1000e,addr=0.0,multifunction=on", "e1000e,addr=0.1"),
    *nic(3, "e1000e"),
    *nic(4, "virtio-net-pci,iommu_platform=on,disable-legacy=on"),
)


def ready(machine: Nested) -> None:
    """Return when the NICs of a machine with DEVICES are there."""
    machine.sh("for each in igb e1000e virtio_net vfio-pci; do modprobe $each; done")
    machine.until("test $(ls /sys/class/net | wc -l) = 6")


@contextlib.contextmanager
def unchanged(machine: Nested) -> Iterator[None]:
    """See that a machine is soon as it was before."""
    before = inside(machine, "snapshot")
    yield
    machine.until("! test -e /run/qemu-netwrap", _PATIENCE)
    deadline = time.monotonic() + _PATIENCE
    while (after := inside(machine, "snapshot")) != before and time.monotonic() < deadline:
        time.sleep(1)
    assert after == before


def inside(machine: Nested, verb: str, *args: str) -> Any:  # noqa: ANN401 - JSON
    """Have a function of vfio.inside called in the machine; return its answer."""
    return machine.call("vfio.inside", verb, *args)


def launch(machine: Nested, *words: str, ours: tuple[str, ...] = ()) -> Job:
    """Start QEMU through the tool, and return when it is there with all of its devices."""
    machine.sh("rm -f /mnt/job/qmp")
    qmp = ("-qmp", "unix:/mnt/job/qmp,server=on,wait=off")
    job = machine.start(COMMAND, *ours, "--", *QEMU, *qmp, *words)
    machine.until(f"test -S /mnt/job/qmp || ! test -e /proc/{job.pid}/exe")
    assert job.status is None, job.printed
    return job


def device(bdf: str) -> tuple[str, str]:
    return "-device", f"vfio-pci,host={bdf}"


def refusal(machine: Nested, *words: str, ours: tuple[str, ...] = ()) -> str:
    """Return what the tool says when it refuses to launch."""
    done = machine.run(COMMAND, *ours, "--", *QEMU, *words, check=False)
    assert done.status == 125, done
    # Before it may stand what was done until then, and is undone.
    error, hint = done.stderr.splitlines()[-2:]
    assert hint.startswith("  hint: ")
    return error.removeprefix("qemu-netwrap: ")
