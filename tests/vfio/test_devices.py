"""Whole devices: taken from their drivers for QEMU, and given back as they were."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from lab.nested import Nested
from lab.tool import COMMAND
from vfio.shared import (
    E1000E,
    IGB,
    IOMMU,
    QEMU,
    TWINS,
    VIRTIO,
    device,
    inside,
    launch,
    nic,
    refusal,
)

NODE = f"/dev/vfio/$(basename $(readlink /sys/bus/pci/devices/{E1000E}/iommu_group))"


def test_nics_of_every_kind(machine: Nested) -> None:
    mac = inside(machine, "snapshot")["links"]["eth3"][0]
    machine.sh(f"""
        ip link set eth3 name lan0 mtu 1400
        ip link set lan0 address 52:54:00:00:00:77
        ip addr add 192.0.2.7/24 brd + dev lan0
        ip addr add 2001:db8::7/64 dev lan0 nodad
        ip link set lan0 up
        ip route add default via 192.0.2.1
        ip route add 198.51.100.0/24 via 192.0.2.2 metric 7 table 77
        ip route add 2001:db8:1::/48 via 2001:db8::1
        ip neigh add 192.0.2.9 lladdr 52:54:00:00:00:99 dev lan0
        echo 2 >/proc/sys/net/ipv4/conf/lan0/rp_filter
        ip link set $(ls /sys/bus/pci/devices/{IGB}/net) up
        echo virtio-pci >/sys/bus/pci/devices/{VIRTIO}/driver_override
    """)
    before = inside(machine, "snapshot")
    machine.sh("modprobe -r vfio_pci vfio_iommu_type1")
    devices = (
        *device(E1000E),
        *("-device", json.dumps({"driver": "vfio-pci", "host": VIRTIO[5:]})),
        *("-device", "vfio-pci,id=pf", "-set", f"device.pf.host={IGB}"),
    )
    assert "carries the host's default route" in refusal(machine, *devices)
    job = launch(machine, *devices, ours=("--force-uplink",))
    ids = inside(machine, "pci", "/mnt/job/qmp")
    assert {"8086:10d3", "8086:10c9", "1af4:1041"} <= set(ids)
    during = inside(machine, "snapshot")
    for bdf in (E1000E, IGB, VIRTIO):
        assert during["devices"][bdf][:2] == ["vfio-pci", "vfio-pci"]
    assert "lan0" not in during["links"]
    (run,) = json.loads(machine.run(COMMAND, "ps", "--json").stdout)["runs"]
    assert [each["bdf"] for each in run["devices"]] == [E1000E, VIRTIO, IGB]
    assert E1000E in machine.run(COMMAND, "ps").stdout
    machine.sh(f"kill {job.pid}")
    assert job.wait() == 0
    machine.until("! test -d /run/qemu-netwrap")
    assert inside(machine, "snapshot") == before
    machine.sh(f"""
        echo >/sys/bus/pci/devices/{VIRTIO}/driver_override
        ip link set $(ls /sys/bus/pci/devices/{IGB}/net) down
        ip link set lan0 down
        ip addr flush dev lan0
        ip neigh flush dev lan0 nud permanent
        echo 0 >/proc/sys/net/ipv4/conf/lan0/rp_filter
        ip link set lan0 address {mac} mtu 1500 name eth3
    """)


def test_what_cannot_be_passed_through(machine: Nested) -> None:
    said = refusal(machine, *device(TWINS[0]))
    assert "is not viable" in said
    assert f"{TWINS[1]} (Ethernet controller, driver e1000e, eth" in said
    assert "there is no PCI device 0000:77:00.0" in refusal(machine, *device("77:0.0"))
    assert "PCI bridge" in refusal(machine, *device("0:4.0"))
    assert "no virtual functions" in refusal(machine, "-nic", "sriov,pf=lo")
    assert "no interface nope0" in refusal(machine, "-nic", "sriov,pf=nope0")
    assert "virtual functions at most" in refusal(machine, "-nic", "sriov,pf=eth0,vf=7")
    machine.sh("ip link add link eth3 name eth3.5 type vlan id 5")
    assert "eth3.5, which would be gone" in refusal(machine, *device(E1000E))
    machine.sh("ip link del eth3.5")


def test_the_host_stays_in_reach(machine: Nested) -> None:
    machine.sh("""
        ip link add br9 type bridge
        ip link set eth3 master br9 up
        ip link set br9 up
        ip addr add 192.0.2.7/24 dev br9
        ip -6 route add default dev br9
    """)
    assert "carries the host's default route" in refusal(machine, *device(E1000E))
    done = machine.run(COMMAND, "vfio", "bind", E1000E, check=False)
    assert "carries the host's default route" in done.stderr
    machine.sh("ip -6 route del default")
    session = ("env", "SSH_CONNECTION=192.0.2.9 50000 192.0.2.7 22")
    done = machine.run(*session, COMMAND, "--", *QEMU, *device(E1000E), check=False)
    assert (done.status, "SSH session" in done.stderr) == (125, True), done
    machine.sh("ip link set eth3 nomaster down; ip link del br9")


def test_a_group_together(machine: Nested) -> None:
    plan = (COMMAND, "--bind-group", "plan", "--json", *QEMU, *device(TWINS[0]))
    steps = json.loads(machine.run(*plan).stdout)["steps"]
    assert [(s["kind"], s["bdf"], s["driver"]) for s in steps] == [
        ("PciBinding", bdf, "e1000e") for bdf in TWINS
    ]
    assert all(step["do"] and step["undo"] for step in steps)
    machine.sh("echo bind_group = true >/mnt/job/group.toml")
    job = launch(machine, *device(TWINS[0]), ours=("--config", "/mnt/job/group.toml"))
    assert inside(machine, "pci", "/mnt/job/qmp").count("8086:10d3") == 1
    during = inside(machine, "snapshot")
    assert [during["devices"][bdf][0] for bdf in TWINS] == ["vfio-pci", "vfio-pci"]
    assert f"(pid {job.pid})" in refusal(machine, *device(TWINS[1]))
    machine.sh(f"kill -9 {job.pid}")


def test_a_process_that_has_it(machine: Nested) -> None:
    machine.run(COMMAND, "vfio", "bind", E1000E)
    job = machine.start(*QEMU, *device(E1000E))  # without us
    machine.until(f"ls -l /proc/{job.pid}/fd | grep -q {NODE}$")
    by = f"in use by qemu-system-x86 (pid {job.pid})"
    assert by in refusal(machine, *device(E1000E))
    assert by in machine.run(COMMAND, "vfio", "unbind", E1000E, check=False).stderr
    # Nobody of ours does that: it hangs until the process ends.
    assert "the kernel hangs over writing" in inside(machine, "unbind", E1000E)
    machine.sh(f"kill {job.pid}")
    machine.until(f"! test -e /sys/bus/pci/devices/{E1000E}/driver")
    machine.run(COMMAND, "vfio", "unbind", E1000E)


def test_by_hand(machine: Nested) -> None:
    machine.run(COMMAND, "vfio", "bind", E1000E)
    owner = f"stat -c %U {NODE}"
    job = launch(machine, *device(E1000E), ours=("--run-as", "nobody"))
    assert machine.sh(owner) == "nobody"
    listed = json.loads(machine.run(COMMAND, "vfio", "list", "--json").stdout)["devices"]
    found = {each["bdf"]: each for each in listed}
    assert found[E1000E]["held_by"] == f"run {job.pid}"
    assert found[E1000E]["driver"] == "vfio-pci"
    assert found[IGB]["total_vfs"] == 7
    assert found[IGB]["obstacle"] == ""
    assert TWINS[1] in found[TWINS[0]]["obstacle"]
    runs = json.loads(machine.run(COMMAND, "ps", "--json").stdout)["runs"]
    assert [(run["run"], run["state"]) for run in runs] == [(str(job.pid), "running")]
    done = machine.run(COMMAND, "vfio", "unbind", E1000E, check=False)
    assert "in use by run" in done.stderr
    machine.sh(f"kill {job.pid}")
    machine.run(COMMAND, "wait")
    # It was on vfio-pci before, and is after.
    assert inside(machine, "snapshot")["devices"][E1000E][0] == "vfio-pci"
    assert machine.sh(owner) == "root"
    machine.run(COMMAND, "vfio", "unbind", E1000E)


def _without_an_iommu() -> str:
    """Return what is said there."""
    with Nested([*nic(1, "e1000e")]) as machine:
        machine.sh("modprobe e1000e")
        return refusal(machine, *device("1:0.0"))


@pytest.mark.early(scene=_without_an_iommu)
def test_a_machine_without_an_iommu(shown: str) -> None:
    assert "the kernel uses no IOMMU" in shown


class _Remapping(NamedTuple):
    """What is said in a machine that does not remap interrupts, and what is changed by that."""

    refused: str
    allowed: str  # VFIO was told to do without
    before: Any
    after: Any


def _without_remapping() -> _Remapping:
    """Return what is said there, also of a group that is not viable."""
    iommu = IOMMU.replace("intremap=on", "intremap=off")
    with Nested(["-device", iommu, *nic(1, "igb", port=",disable-acs=on")]) as machine:
        machine.sh("modprobe igb")
        machine.until("test -d /sys/class/net/eth0")
        refused = refusal(machine, *device("1:0.0"))
        machine.sh("modprobe vfio_iommu_type1 allow_unsafe_interrupts=1")
        before = inside(machine, "snapshot")
        allowed = refusal(machine, "-nic", "sriov,pf=eth0")
        return _Remapping(refused, allowed, before, inside(machine, "snapshot"))


@pytest.mark.early(scene=_without_remapping)
def test_a_machine_that_does_not_remap_interrupts(shown: _Remapping) -> None:
    assert "interrupts are not remapped" in shown.refused
    assert "is not viable" in shown.allowed
    assert "0000:01:00.0 (Ethernet controller, driver igb, eth0)" in shown.allowed
    assert shown.after == shown.before
