"""One nested machine for all tests of this folder, which must be after each as it was before."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from lab.nested import Nested
from vfio.shared import IOMMU, inside, nic

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 600
# An SR-IOV NIC, a card with two NICs in one group, and two more NICs.
DEVICES = (
    *("-device", IOMMU),
    *nic(1, "igb"),
    *nic(2, "e1000e,addr=0.0,multifunction=on", "e1000e,addr=0.1"),
    *nic(3, "e1000e"),
    *nic(4, "virtio-net-pci,iommu_platform=on,disable-legacy=on"),
)


@pytest.fixture(scope="session")
def nested() -> Iterator[Nested]:
    """Yield the machine."""
    if os.geteuid() != 0:
        pytest.skip("what is this machine's root for the nested one is read as root")
    with Nested(DEVICES) as machine:
        ready(machine)
        yield machine


def ready(machine: Nested) -> None:
    """Return when the machine's NICs are there."""
    machine.sh("for each in igb e1000e virtio_net vfio-pci; do modprobe $each; done")
    machine.until("test $(ls /sys/class/net | wc -l) = 6")


@pytest.fixture
def machine(nested: Nested) -> Iterator[Nested]:
    """Yield the machine; what a test changes there must be as it was soon after."""
    before = inside(nested, "snapshot")
    yield nested
    nested.until("! test -e /run/qemu-netwrap", _PATIENCE)
    deadline = time.monotonic() + _PATIENCE
    while (after := inside(nested, "snapshot")) != before and time.monotonic() < deadline:
        time.sleep(1)
    assert after == before
