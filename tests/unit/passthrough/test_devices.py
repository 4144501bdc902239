"""What of the host is passed through, and the words that QEMU gets for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.errors import HostError, UsageError
from qemu_netwrap.model import pci
from qemu_netwrap.passthrough import devices
from qemu_netwrap.qemu import command_line, readconfig
from qemu_netwrap.qemu.network_options import NetworkOptions, interpret
from qemu_netwrap.runtime import plan

if TYPE_CHECKING:
    from qemu_netwrap.passthrough.devices import HostDevice

BDF = "0000:01:10.4"
NIC = pci.Device("0000:02:00.0", "020000", "8086:10d3", "e1000e", group="9", ifnames=("eth1",))


def reading(*qemu: str) -> NetworkOptions:
    found = interpret(command_line.parse(["qemu", *qemu]))
    assert found is not None
    return found


def wanted(*qemu: str) -> tuple[HostDevice, ...]:
    return devices.find(reading(*qemu))


def become(*qemu: str) -> tuple[str, ...]:
    """Return the words that a QEMU gets, every VF being BDF."""
    read = reading(*qemu)
    found = devices.find(read)
    unchanged = plan.Plan(read.line, "RUN").rewritten({})
    chosen = tuple(device.host or BDF for device in found)
    return devices.replace_options(unchanged, found, chosen).words({})


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("0000:01:00.0", "0000:01:00.0"),
        ("1:0.0", "0000:01:00.0"),
        ("a:1F.7", "0000:0a:1f.7"),
        ("10000:e1:00.0", "10000:e1:00.0"),
        ("0x1:00:02.1", "0001:00:02.1"),
    ],
)
def test_addresses(typed: str, found: str) -> None:
    assert pci.parse(typed) == found


@pytest.mark.parametrize(
    "typed",
    ["", ":", "01:00", "01:00.8", "01:20.0", "100:00.0", "g:0.0", "1:0.a", "1:2:3:0.0", "1:0.0 "],
)
def test_no_addresses(typed: str) -> None:
    with pytest.raises(ValueError, match="PCI address"):
        pci.parse(typed)


@pytest.mark.parametrize(
    "qemu",
    [
        ("-device", "vfio-pci,host=02:00.0"),
        ("-device", "driver=vfio-pci,host=0000:02:00.0,id=d"),
        ("-device", '{"driver": "vfio-pci", "host": "02:00.0"}'),
        ("-device", "vfio-pci,id=d", "-set", "device.d.host=02:00.0"),
        ("-device", "vfio-pci-nohotplug,host=02:00.0"),
    ],
)
def test_a_device_by_its_address(qemu: tuple[str, ...]) -> None:
    (found,) = wanted(*qemu)
    assert found.host == "0000:02:00.0"
    assert become(*qemu) == ("qemu", *qemu)


def test_a_device_by_its_path() -> None:
    (found,) = wanted("-device", "vfio-pci,sysfsdev=/sys/bus/mdev/devices/x,host=02:00.0")
    assert (found.host, found.path) == ("", "/sys/bus/mdev/devices/x")


@pytest.mark.parametrize("device", ["vfio-pci", "vfio-pci,host=nonsense", "vfio-pci,host=1:0"])
def test_what_qemu_will_refuse_is_qemus(device: str) -> None:
    assert wanted("-device", device) == ()


@pytest.mark.parametrize("device", ["virtio-net,mac=vfio", "vfio-ap,sysfsdev=/x", "e1000"])
def test_other_devices_are_not_looked_at(device: str) -> None:
    assert interpret(command_line.parse(["qemu", "-device", device])) is None


@pytest.mark.parametrize(
    ("qemu", "words_now"),
    [
        (
            "-m 1G -nic sriov,pf=eth0,vlan=5 -S",
            f"-m 1G -device vfio-pci,host={BDF} -nic none -S",
        ),
        ("-nic sriov,pf=eth0,id=n", f"-device vfio-pci,host={BDF},id=n -nic none"),
        (
            "-netdev sriov,id=n,pf=eth0 -device vfio-pci,netdev=n,bus=rp1,mac=52:54:00:00:00:01",
            f"-nic none -device vfio-pci,bus=rp1,host={BDF}",
        ),
        (
            "-device vfio-pci,netdev=n -S -netdev sriov,id=n,pf=eth0",
            f"-device vfio-pci,host={BDF} -S -nic none",
        ),
        (
            (
                "-netdev sriov,id=n -set netdev.n.pf=eth0 -device e1000,id=d,netdev=n -S"
                " -set device.d.driver=vfio-pci"
            ),
            f"-nic none -device e1000,id=d,driver=vfio-pci,host={BDF} -S",
        ),
        (
            "-nic sriov,pf=eth0 -nic user -nic sriov,pf=eth0",
            (
                f"-device vfio-pci,host={BDF} -nic none -nic user"
                f" -device vfio-pci,host={BDF} -nic none"
            ),
        ),
    ],
)
def test_a_virtual_function(qemu: str, words_now: str) -> None:
    assert {found.pf for found in wanted(*qemu.split())} == {"eth0"}
    assert become(*qemu.split()) == ("qemu", *words_now.split())


def test_devices_from_a_file() -> None:
    text = '[device "d"]\n  driver = "vfio-pci"\n  host = "02:00.0"\n'
    read = interpret(
        command_line.parse(["qemu", "-readconfig", "f"]), {1: readconfig.parse("f", text)}
    )
    assert read is not None
    (found,) = devices.find(read)
    assert (found.label, found.host) == ("d", "0000:02:00.0")


def test_a_virtual_function_is_not_for_a_file() -> None:
    text = '[nic]\n  type = "sriov"\n  pf = "eth0"\n'
    read = interpret(
        command_line.parse(["qemu", "-readconfig", "f"]), {1: readconfig.parse("f", text)}
    )
    assert read is not None
    with pytest.raises(UsageError, match="cannot stand in a file"):
        devices.find(read)


def test_the_devices_mac_is_the_virtual_functions() -> None:
    (found,) = wanted(
        *("-netdev", "sriov,id=n,pf=eth0,mac=52:54:00:00:00:02"),
        *("-device", "vfio-pci,netdev=n,mac=52:54:00:00:00:01"),
    )
    assert found.mac == "52:54:00:00:00:01"


@pytest.mark.parametrize(
    "net",
    [
        "-netdev sriov,id=n,pf=eth0",
        "-netdev sriov,id=n,pf=eth0 -device e1000,netdev=n",
        "-netdev sriov,id=n,pf=eth0 -device vfio-pci,netdev=n -device vfio-pci,netdev=n",
    ],
)
def test_a_netdev_has_one_device(net: str) -> None:
    with pytest.raises(UsageError):
        wanted(*net.split())


@pytest.mark.parametrize(
    "net",
    [
        "-nic sriov",
        "-nic sriov,pf=",
        "-nic sriov,pf=eth0,vf=-1",
        "-nic sriov,pf=eth0,vlan=4095",
        "-nic sriov,pf=eth0,trust=maybe",
        "-nic sriov,pf=eth0,mac=01:00:00:00:00:00",
        "-nic sriov,pf=eth0,model=e1000",
        "-net sriov,pf=eth0",
        "-netdev sriov,pf=eth0",
    ],
)
def test_what_is_wrong_is_told(net: str) -> None:
    with pytest.raises(UsageError) as caught:
        interpret(command_line.parse(["qemu", *net.split()]))
    assert caught.value.message.startswith(net)
    assert caught.value.hint


def test_a_group_of_its_own() -> None:
    bridge = pci.Device("0000:00:04.0", "060400", "1b36:000c", "pcieport", group="9")
    stub = NIC.replace(bdf="0000:02:00.1", driver="pci-stub", ifnames=())
    other = [bridge, NIC, stub, stub.replace(driver=""), stub.replace(driver="mlx5_vfio_pci")]
    assert devices.siblings("x", NIC, other, {NIC.bdf}, bind_group=False) == ()


def test_a_group_with_others() -> None:
    twin = NIC.replace(bdf="0000:02:00.1", ifnames=("eth2",))
    with pytest.raises(HostError, match=r"02:00\.1 \(Ethernet controller, driver e1000e, eth2\)"):
        devices.siblings("x", NIC, [NIC, twin], {NIC.bdf}, bind_group=False)
    assert devices.siblings("x", NIC, [NIC, twin], {NIC.bdf}, bind_group=True) == (twin,)
    both = {NIC.bdf, twin.bdf}
    assert devices.siblings("x", NIC, [NIC, twin], both, bind_group=False) == ()


def check(device: pci.Device, use: devices.Use | None = None) -> None:
    use = use or devices.Use()
    devices.check_device("x", device, use, {"br0": "the way here"})


def test_what_is_in_use_is_refused() -> None:
    check(NIC, devices.Use("", frozenset({"eth1", "bond0"})))
    with pytest.raises(HostError, match=r"in use by qemu \(pid 7\)"):
        check(NIC, devices.Use("qemu (pid 7)"))
    with pytest.raises(HostError, match="carries the way here"):
        check(NIC, devices.Use("", frozenset({"eth1", "br0"})))
    with pytest.raises(HostError, match=r"carries eth1\.5, which would be gone"):
        check(NIC, devices.Use("", frozenset({"eth1", "eth1.5"}), ("eth1.5",)))
    with pytest.raises(HostError, match="has virtual functions"):
        check(NIC.replace(vfs=(BDF,)))
    with pytest.raises(HostError, match="PCI bridge"):
        check(NIC.replace(kind="060400"))


@pytest.mark.parametrize(("iommu", "remaps"), [(False, True), (True, False)])
def test_a_host_that_cannot(iommu: bool, remaps: bool) -> None:
    devices.check_host(has_iommu=True, remaps_interrupts=True)
    with pytest.raises(HostError) as caught:
        devices.check_host(has_iommu=iommu, remaps_interrupts=remaps)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("qemu", "mebibytes"),
    [
        ("", 128),
        ("-m 512", 512),
        ("-m 2G", 2048),
        ("-m 1.5g", 1536),
        ("-m size=1G,slots=2,maxmem=4G", 4096),
        ("-m 1024 -device intel-iommu,intremap=on", 2048),
        ("-m 1024 -M virt,iommu=smmuv3", 2048),
        ('-m 1024 -device {"driver":"intel-iommu"}', 2048),
        ("-m 1024 -device intremap=on,driver=intel-iommu", 2048),
        ("-m 0x400", 1024),
        ("-M q35,memory.size=2G", 2048),
        ("-M q35,memory-backend=ram -object memory-backend-ram,id=ram,size=2147483648", 2048),
        ("-object memory-backend-ram,id=other,size=2G", 128),
    ],
)
def test_memory_to_lock(qemu: str, mebibytes: int) -> None:
    read = reading(*qemu.split(), "-device", "vfio-pci,host=1:0.0")
    assert devices.memory_to_lock(read, 2) == (mebibytes << 20) + (1 << 30)


def test_memory_to_lock_of_a_file() -> None:
    file = readconfig.parse("memory.cfg", '[memory]\nsize = "8G"\n')
    line = command_line.parse(
        ["qemu", "-readconfig", "memory.cfg", "-device", "vfio-pci,host=1:0.0"]
    )
    read = interpret(line, {1: file})
    assert read is not None
    assert devices.memory_to_lock(read, 1) == 9 << 30


@pytest.mark.parametrize(
    ("typed", "mac"),
    [
        ("52-54-00-AB-cd-01", "52:54:00:ab:cd:01"),
        ("0x123456", "00:00:00:12:34:56"),
        ("00:00:00:00:00:00", ""),
    ],
)
def test_the_mac_of_a_netdev(typed: str, mac: str) -> None:
    device = ("-device", "vfio-pci,netdev=n")
    (found,) = wanted("-netdev", f"sriov,id=n,pf=eth0,mac={typed}", *device)
    assert found.mac == mac
    with pytest.raises(UsageError, match="mac=00-11"):
        wanted("-netdev", "sriov,id=n,pf=eth0,mac=00-11", *device)
