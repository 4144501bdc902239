"""What the tests of this folder share: the machine's NICs, launching in it, looking into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.tool import COMMAND

if TYPE_CHECKING:
    from lab.nested import Job, Nested

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
