"""Traffic of a guest by virtual functions: to other functions, and to the physical one."""

from __future__ import annotations

import pytest

from lab.nested import Nested
from lab.tool import COMMAND
from vfio.shared import BOOTING, DEVICES, IGB, ready, unchanged

# Two functions of the host's, each a machine of its own: vf2 is on VLAN 7, vf3 on none, like the
# physical one, which has an address of either subnet.
_OTHERS = f"""
modprobe igbvf
ip link set eth0 up
echo 4 >/sys/bus/pci/devices/{IGB}/sriov_numvfs
ip link set eth0 vf 2 mac 52:54:00:00:07:02 vlan 7
ip link set eth0 vf 3 mac 52:54:00:00:00:02
for n in 2 3; do
    ip netns add vf$n
    ip link set "$(ls /sys/bus/pci/devices/{IGB}/virtfn$n/net)" netns vf$n name vf$n
    ip -n vf$n addr add 198.51.10$((3 - n)).2/24 dev vf$n
    ip -n vf$n link set vf$n up
done
ip addr add 198.51.101.9/24 dev eth0
ip addr add 198.51.100.9/24 dev eth0
"""
# As vf3 is by 198.51.100.0, the guest's eth1 is, too; vf2 and its eth0 are by 198.51.101.0.
_JOB = """
for each in af_packet ipv6 igbvf; do load $each; done
try 100 test -d /sys/class/net/eth1
for n in 0 1; do
    ip link set eth$n up
    ip addr add 198.51.10$((1 - n)).1/24 dev eth$n
    report mac$n "$(cat /sys/class/net/eth$n/address)"
done
try 100 ping -c 1 -W 1 198.51.101.2 && report vlan ok
try 100 ping -c 1 -W 1 198.51.100.2 && report plain ok
try 100 ping -c 1 -W 1 198.51.100.9 && report physical ok
# What cannot be reached is tried only when what can be has been.
ping -c 3 -W 1 198.51.101.9 || report apart ok
report through ok
sleep 100000
"""
_UNDO = f"""
ip netns del vf2
ip netns del vf3
ip addr flush dev eth0
echo 0 >/sys/bus/pci/devices/{IGB}/sriov_numvfs
ip link set eth0 down
"""


def _traffic() -> tuple[str, str]:
    """Return a guest's console, and what was said of it."""
    with Nested(DEVICES) as machine:
        ready(machine)
        with unchanged(machine):
            return _boot(machine)


def _boot(machine: Nested) -> tuple[str, str]:
    """Have the guest do its job."""
    machine.sh(_OTHERS)
    words = machine.guest("guest", _JOB, "af_packet", "igbvf")
    nics = ("-nic", "sriov,pf=eth0,vlan=7,mac=52:54:00:00:07:01", "-nic", "sriov,pf=eth0")
    guest = machine.start(COMMAND, "--", *BOOTING, *words, *nics)
    through = "[[ -e /mnt/job/guest && $(</mnt/job/guest) == *'@@ through'* ]]"
    machine.until(f"{through} || ! test -e /proc/{guest.pid}/exe", timeout=1800)
    console, printed = machine.sh("cat /mnt/job/guest", check=False), guest.printed
    machine.sh(f"kill {guest.pid}", check=False)
    machine.run(COMMAND, "wait")
    machine.sh(_UNDO)
    return console, printed


@pytest.mark.early(scene=_traffic)
def test_a_guest_reaches_whom_it_should(shown: tuple[str, str]) -> None:
    console, printed = shown
    for told in ("vlan ok", "plain ok", "physical ok", "apart ok", "mac0 52:54:00:00:07:01"):
        assert f"@@ {told}" in console, console + printed
    assert "@@ mac1 52:54:00:" in console
