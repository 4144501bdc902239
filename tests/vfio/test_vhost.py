"""vhost=on: by the nested machine's kernel, which has what it takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.tool import COMMAND
from vfio.shared import launch

if TYPE_CHECKING:
    from lab.nested import Nested

READING = Path(__file__).with_name("reading.py")


def test_vhost(machine: Nested) -> None:
    machine.sh("modprobe vhost_net")
    job = launch(machine, "-nic", "nat,vhost=on,model=virtio-net-pci")
    assert "/dev/vhost-net" in machine.sh(f"ls -l /proc/{job.pid}/fd")
    machine.sh(f"kill {job.pid}")
    machine.run(COMMAND, "wait")


def test_who_reads_a_tap_as_vhost_does_gets_checksums(machine: Nested) -> None:
    machine.sh(f"printf '#!/bin/sh\\nexec {sys.executable} {READING} \"$@\"\\n' >/mnt/job/vm")
    machine.sh("chmod +x /mnt/job/vm; modprobe vhost_net")
    with_vhost = machine.run(COMMAND, "--", "/mnt/job/vm", "-nic", "nat,vhost=on")
    assert with_vhost.stdout == "well\n"
    machine.run(COMMAND, "wait")
    without = machine.run(COMMAND, "--", "/mnt/job/vm", "-nic", "nat")
    assert without.stdout == "left to do\n"  # to QEMU
    machine.run(COMMAND, "wait")
