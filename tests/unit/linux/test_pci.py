"""What sysfs tells of PCI devices, of a record of the nested machine (tests/vfio/record.py)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, pci
from qemu_netwrap.linux.netlink import interface_state
from qemu_netwrap.model.run import DeviceInfo
from qemu_netwrap.passthrough import assign
from qemu_netwrap.passthrough.devices import find
from qemu_netwrap.pci_state import PciState
from qemu_netwrap.qemu import command_line
from qemu_netwrap.qemu.network_options import interpret
from qemu_netwrap.resources import vfio
from qemu_netwrap.resources.base import Context
from qemu_netwrap.resources.vfio import VfioBinding
from qemu_netwrap.runtime import executor, runs, vfio_bind
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.passthrough.devices import HostDevice

RECORD = Path(__file__).parents[1] / "data" / "sysfs.json"
PF, TWINS, E1000E = "0000:01:00.0", ("0000:02:00.0", "0000:02:00.1"), "0000:03:00.0"
VIRTIO, VFS = "0000:04:00.0", ("0000:01:10.0", "0000:01:10.2")


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay the record out; return the folder that stands for the root."""
    for path, text in json.loads(RECORD.read_text("utf-8")).items():
        place = tmp_path / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            target = tmp_path / text[4:]
            if not target.exists():
                target.mkdir(parents=True)
            place.symlink_to(os.path.relpath(target, place.parent))
        elif place.parent.name == "net":
            place.mkdir(exist_ok=True)
        else:
            place.write_text(text, "utf-8")
    monkeypatch.setattr(pci, "SYS", f"{tmp_path}/sys")
    monkeypatch.setattr(pci, "DEV", f"{tmp_path}/dev/vfio")
    monkeypatch.setattr(interface_state, "_SYS", f"{tmp_path}/sys/class/net")
    for name in ("INTERRUPTS", "MOUNTS", "SWAPS"):
        monkeypatch.setattr(pci, name, f"{tmp_path}/proc/{name.lower()}")
    return tmp_path


@pytest.mark.usefixtures("sysfs")
def test_a_physical_function() -> None:
    device = pci.look(PF)
    assert device is not None
    assert (device.driver, device.ifnames, device.total_vfs, device.vfs) == (
        "igb",
        ("eth0",),
        7,
        VFS,
    )
    assert (device.what, device.ids, device.override) == ("Ethernet controller", "8086:10c9", "")
    assert pci.by_ifname("eth0") == PF


@pytest.mark.usefixtures("sysfs")
def test_virtual_functions() -> None:
    by_host, by_hand = map(pci.look, VFS)
    assert by_host is not None
    assert by_hand is not None
    assert (by_host.pf, by_host.driver, len(by_host.ifnames)) == (PF, "igbvf", 1)
    assert (by_hand.pf, by_hand.driver, by_hand.override) == (PF, "vfio-pci", "vfio-pci")
    assert by_host.group != by_hand.group


@pytest.mark.usefixtures("sysfs")
def test_an_interface_behind_a_virtio_device() -> None:
    device = pci.look(VIRTIO)
    assert device is not None
    assert (device.driver, len(device.ifnames)) == ("virtio-pci", 1)
    assert pci.by_ifname(device.ifnames[0]) == VIRTIO


@pytest.mark.usefixtures("sysfs")
def test_what_is_not_there() -> None:
    assert pci.look("0000:77:00.0") is None
    assert pci.by_ifname("nope0") == ""


@pytest.mark.usefixtures("sysfs")
def test_a_group() -> None:
    device = pci.look(TWINS[0])
    assert device is not None
    assert tuple(member.bdf for member in pci.members(device.group)) == TWINS


def test_a_path(sysfs: Path) -> None:
    assert pci.by_path(f"{sysfs}/sys/bus/pci/devices/{PF}") == PF
    assert pci.by_path(f"{sysfs}/sys/bus/pci/devices/{PF}/virtfn1") == VFS[1]
    assert pci.by_path(f"{sysfs}/sys/class/net") == ""


def test_interrupts(sysfs: Path) -> None:
    assert pci.has_iommu()
    assert pci.remaps_interrupts()
    (sysfs / "proc/interrupts").write_text(" 24: 0 PCI-MSI 81920-edge eth0\n", "utf-8")
    assert not pci.remaps_interrupts()
    switch = sysfs / "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    switch.parent.mkdir(parents=True)
    switch.write_text("Y\n", "utf-8")
    assert pci.remaps_interrupts()


@pytest.mark.usefixtures("sysfs")
def test_the_list(tmp_path: Path) -> None:
    found = {d.bdf: d for d in vfio_bind.all_devices(StateDir(f"{tmp_path}/run/boot-net"))}
    assert set(found) == {PF, *TWINS, E1000E, VIRTIO, *VFS}
    assert found[PF].obstacle == "has virtual functions"
    assert found[TWINS[0]].obstacle == f"group shared with {TWINS[1]}"
    assert [found[bdf].obstacle for bdf in (E1000E, VIRTIO, *VFS)] == ["", "", "", ""]
    assert found[VFS[1]].pf == PF


@pytest.mark.parametrize("number", pci.COUNT_REFUSALS)
def test_why_no_functions_can_be_made(number: int) -> None:
    said = pci.count_refused(PF, 9, OSError(number, os.strerror(number)))
    assert said.message.startswith(f"{PF}: 9 virtual functions cannot be made: ")
    assert said.hint


def test_every_refusal_has_its_own_words() -> None:
    told = {errno.EBUSY, errno.ENOSPC, errno.ERANGE}
    said = {pci.count_refused(PF, 9, OSError(number, "x")).message for number in told}
    assert len(said) == 3
    assert not any(message.endswith("x") for message in said)


def test_a_write_that_the_kernel_refuses(sysfs: Path) -> None:
    (sysfs / "sys/bus/pci/devices" / PF / "sriov_numvfs").unlink()
    with pytest.raises(HostError, match="its driver makes none"):
        pci.set_vf_count(PF, 2)


def test_a_device_that_another_run_has(sysfs: Path) -> None:
    state = StateDir(f"{sysfs}/run/boot-net")
    work, claim = Context(state), PciState(state).claim(E1000E)
    binding = VfioBinding(E1000E, "7")
    files.write(claim, f"{state.base} 8")
    files.write(f"{PciState(state).claim(PF)}", f"{state.base} 7")
    in_flight = (f"{PciState(state).claim(PF)}.9~", f"{claim}.9~")
    for path in in_flight:
        files.append(path, "x")
    with pytest.raises(HostError, match="in use by run 8"):
        next(binding.acquire(work))
    # Nor is it given back by whoever had it once.
    next(binding.release(work, {"driver": "e1000e", "override": ""}))
    assert pci.driver(E1000E) == "vfio-pci"
    assert files.read(claim) == f"{state.base} 8"
    assert list(map(os.path.exists, in_flight)) == [True, False]
    work.rtnl.close()


def add_disk(sysfs: Path, place: str, number: str = "") -> Path:
    """Add a disk, or a partition of one, at a place below the folder of devices."""
    folder = sysfs / "sys/devices" / place
    (folder / "holders").mkdir(parents=True)
    (folder / "dev").write_text(number, "utf-8")
    link = sysfs / "sys/class/block" / folder.name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(folder)
    return folder


@pytest.mark.parametrize("by_ways", [False, True])
def test_disks_that_the_host_uses(sysfs: Path, by_ways: bool) -> None:
    below = "pci0000:00/0000:00:05.0/0000:03:00.0/nvme/nvme0"
    if by_ways:
        add_disk(sysfs, f"{below}/nvme0c0n1")
        below = "virtual/nvme-subsystem/nvme-subsys0"
    disk = add_disk(sysfs, f"{below}/nvme0n1", "259:0\n")
    add_disk(sysfs, f"{below}/nvme0n1/nvme0n1p1", "259:1\n")
    add_disk(sysfs, "virtual/block/loop0", "7:0\n")
    (sysfs / "proc/mounts").write_text("20 1 7:0 / /snap ro - squashfs /dev/loop0 ro\n", "utf-8")
    device = pci.look(E1000E)
    assert device is not None
    assign.check_use("x", device, {})
    told = []
    for line in (
        "30 1 259:1 / / rw shared:1 - ext4 /dev/root rw",
        "31 1 0:30 / /home rw - btrfs /dev/nvme0n1p1 rw",
    ):
        (sysfs / "proc/mounts").write_text(f"{line}\n", "utf-8")
        told.append(pci.disk_in_use(E1000E))
    with pytest.raises(HostError, match="in use by the host: /dev/nvme0n1p1 is mounted on /home"):
        assign.check_use("x", device, {})
    (sysfs / "proc/mounts").unlink()
    (sysfs / "proc/swaps").write_text("Filename Type\n/dev/nvme0n1p1 partition 9 0 -2\n", "utf-8")
    told.append(pci.disk_in_use(E1000E))
    (disk / "holders/dm-0").touch()
    told.append(pci.disk_in_use(E1000E))
    assert told == [
        ("/dev/nvme0n1p1 is mounted on /", "unmount it first"),
        ("/dev/nvme0n1p1 is mounted on /home", "unmount it first"),
        ("/dev/nvme0n1p1 is swap space", "stop that first: swapoff /dev/nvme0n1p1"),
        ("/dev/nvme0n1 is part of dm-0", "take it out of that first"),
    ]
    assert pci.disk_in_use(PF) == ("", "")


def passing(*qemu: str, session: str = "") -> assign.PassthroughPlan:
    """Return what is to be passed through, with all that shares a group."""
    reading = interpret(command_line.parse(["qemu", *qemu]))
    assert reading is not None
    return assign.PassthroughPlan(find(reading), bind_group=True, session=session)


def acquire(wanted: assign.PassthroughPlan, work: Context) -> Iterator[DeviceInfo]:
    """Acquire WANTED for run 7, as the keeper does."""
    return assign.acquire(
        wanted,
        "7",
        work,
        acquire_all=executor.acquire_all,
        release_dead_runs=runs.release_dead_runs,
    )


def refused(wanted: assign.PassthroughPlan, state: StateDir) -> str:
    """Return why a run gets nothing, and that it has touched nothing."""
    work = Context(state)
    try:
        with pytest.raises(HostError) as caught:
            next(acquire(wanted, work))
    finally:
        work.rtnl.close()
    assert not os.path.exists(f"{state.run('7')}/journal")
    return f"{caught.value.message}\n{caught.value.hint}"


def test_others_of_a_group_are_looked_at(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateDir(f"{sysfs}/run/boot-net")
    wanted = passing("-device", f"vfio-pci,host={TWINS[0]}", session="192.0.2.7")
    monkeypatch.setattr(interface_state, "with_address", {"192.0.2.7": "eth2"}.get)
    said = refused(wanted, state)
    assert f"{TWINS[1]} (Ethernet controller, driver e1000e, eth2) carries the SSH session" in said
    (sysfs / "sys/class/net/eth2/upper_eth2.5").mkdir()
    assert "eth2.5, which would be gone" in refused(wanted.replace(session=""), state)
    add_disk(sysfs, "pci0000:00/0000:00:04.0/0000:02:00.1/ata1/sda")
    (sysfs / "sys/class/block/sda/holders/md0").touch()
    (sysfs / "sys/class/net/eth2/upper_eth2.5").rmdir()
    assert "/dev/sda is part of md0" in refused(wanted.replace(session=""), state)


def test_what_the_host_is_reached_by_once_dead_runs_were_collected(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = sysfs / "sys/devices/pci0000:00/0000:00:05.0/0000:03:00.0/net/eth3"
    monkeypatch.setattr(assign, "_reached", lambda _: {"eth3": "the host's default route"})
    wanted = passing("-device", f"vfio-pci,host={E1000E}")
    assign._check_all(wanted)
    monkeypatch.setattr(runs, "release_dead_runs", lambda _: net.mkdir(parents=True))
    assert "carries the host's default route" in refused(wanted, StateDir(f"{sysfs}/run/boot-net"))
    assign._check_all(wanted.replace(force_uplink=True))


def test_a_function_that_shares_a_group_with_its_own_physical_one(sysfs: Path) -> None:
    groups = sysfs / "sys/kernel/iommu_groups"
    for bdf in VFS:
        link = sysfs / "sys/bus/pci/devices" / bdf / "iommu_group"
        link.unlink()
        link.symlink_to(groups / "8")
        (groups / "8/devices" / bdf).symlink_to(sysfs / "sys/bus/pci/devices" / bdf)
    for qemu in (("-device", f"vfio-pci,host={VFS[1]}"), ("-nic", "sriov,pf=eth0,vf=1")):
        said = refused(passing(*qemu), StateDir(f"{sysfs}/run/boot-net"))
        assert "IOMMU group 8 is not viable" in said
        assert f"{PF} (Ethernet controller, driver igb, eth0), its own physical function" in said
        assert "ACS" in said


def test_a_run_that_is_over_is_waited_for(sysfs: Path) -> None:
    state, said = StateDir(f"{sysfs}/run/boot-net"), list[str]()
    work = Context(state, said.append)
    keeper, lock = (files.open_locked(f"{state.run('8')}/{name}") for name in ("keeper", "lock"))
    assert not vfio.await_ending(E1000E, work)
    files.write(PciState(state).claim(E1000E), f"{state.base} 8")
    with subprocess.Popen(["sleep", "infinity"], pass_fds=(lock,)) as qemu:
        assert not vfio.await_ending(E1000E, work)
        qemu.kill()
    later = threading.Timer(0.2, os.close, (keeper,))
    later.start()
    assert vfio.await_ending(E1000E, work)
    assert not files.is_locked(f"{state.run('8')}/keeper")
    assert said == [f"{E1000E}: waiting for run 8, which is giving it back"]
    later.join()
    os.close(lock)
    work.rtnl.close()


@pytest.mark.parametrize(
    "qemu",
    [
        ("-nic", "sriov,pf=eth0,vf=1", "-nic", "sriov,pf=eth0,vf=1"),
        ("-nic", "sriov,pf=eth0,vf=6", "-nic", "sriov,pf=eth0", "-nic", "sriov,pf=eth0,vf=6"),
        ("-nic", "sriov,pf=eth0,vf=1", "-device", f"vfio-pci,host={VFS[1]}"),
    ],
)
def test_a_function_that_is_named_twice(sysfs: Path, qemu: tuple[str, ...]) -> None:
    said = refused(passing(*qemu), StateDir(f"{sysfs}/run/boot-net"))
    assert f"{qemu[1]} has that virtual function" in said


@pytest.mark.usefixtures("sysfs")
def test_named_functions_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = passing(
        *("-nic", "sriov,pf=eth0,id=a", "-nic", "sriov,pf=eth0,vf=0,id=b"),
        *("-nic", "sriov,pf=eth0,id=c", "-device", f"vfio-pci,host={VFS[1]},id=d"),
    )
    order = []

    def acquire_one(want: HostDevice, key: tuple[str, ...], _: object) -> DeviceInfo:
        order.append(want.label)
        return DeviceInfo(want.label, "", "", key[-1])

    monkeypatch.setattr(assign, "_acquire", acquire_one)
    work = Context(StateDir(f"{tmp_path}/run/boot-net"))
    found = [(info.label, info.mac) for info in acquire(wanted, work)]
    work.rtnl.close()
    assert order == ["b", "d", "a", "c"]
    # In the order typed, each with the MAC that it has wherever another stands.
    assert found == [("a", "0"), ("b", "1"), ("c", "2"), ("d", "3")]


@pytest.mark.usefixtures("sysfs")
def test_functions_are_made_for_all_of_a_run() -> None:
    pf = pci.look(PF)
    assert pf is not None
    pairs = [
        ("-netdev", f"sriov,pf=eth0,id=n{number}", "-device", f"vfio-pci,netdev=n{number}")
        for number in range(20)
    ]
    several = passing(*(word for pair in pairs for word in pair), "-nic", "sriov,pf=eth1,vf=90")
    one = passing("-nic", "sriov,pf=eth0", "-nic", "sriov,pf=eth0,vf=29")
    assert assign._to_make(several, pf) == 0
    pf = pf.replace(vfs=(), total_vfs=60)
    assert [assign._to_make(each, pf) for each in (several, one)] == [20, 30]
    assert assign._to_make(one, pf.replace(total_vfs=7)) == 7


@pytest.mark.usefixtures("sysfs")
def test_a_group_that_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    device = pci.look(E1000E)
    assert device is not None
    looks = iter([True, False, False, *[True] * 1000])  # somebody looks; then somebody has it
    monkeypatch.setattr(pci, "is_group_open", lambda _: next(looks))
    monkeypatch.setattr(vfio, "_PROBE_TIMEOUT", 0.1)
    assign.check_use("x", device, {})
    with pytest.raises(HostError, match="is in use by a process"):
        assign.check_use("x", device, {})
