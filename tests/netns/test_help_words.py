"""Help is QEMU's, and nothing is set up for it; small words of QEMU's that name a VM or its NIC."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.hooked import has_state
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.netns import Host

NAT = "-netdev nat,id=n"


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        ("-nic nat,model=help", "-nic user,model=help"),
        ("-nic host-only,model=?", "-nic user,model=?"),
        ("-nic tap,network=nat,model=help", "-nic user,model=help"),
        (f"{NAT} -drive format=help", "-drive format=help"),
        (f"{NAT} -drive file=/x,format=help", "-drive format=help"),
        (f"{NAT} -device e1000,help", "-device e1000,help"),
        (f"{NAT} -device e1000,help=on", "-device e1000,help"),
        (f"{NAT} -object help", "-object help"),
        (f"{NAT} -cpu help", "-cpu help"),
        (f"{NAT} -name guest=x,help", "-name guest=x,help"),
    ],
)
def test_help_is_qemus_and_provisions_nothing(host: Host, words: str, plain: str) -> None:
    display = ("-display", "none")
    bare = host.run(QEMU, *display, *plain.split(), check=False)
    done = netwrap(host, "--", QEMU, *display, *words.split())
    assert (done.returncode, done.stdout, done.stderr) == (
        bare.returncode, bare.stdout, bare.stderr,
    )  # fmt: skip
    assert bare.stdout
    assert not has_state(host)


def planned(host: Host, *words: str) -> dict[str, object]:
    shown = netwrap(host, "plan", "--json", QEMU, *words, check=True)
    found: dict[str, object] = json.loads(shown.stdout)
    return found


@pytest.mark.parametrize(
    "typed",
    [
        "virtio-net-pci.mac=52:54:00:01:02:03",
        "driver=virtio-net-pci,property=mac,value=52:54:00:01:02:03",
    ],
)
def test_a_global_mac_is_kept(host: Host, typed: str) -> None:
    words = ("-netdev", "nat,id=n", "-device", "virtio-net-pci,netdev=n", "-global", typed)
    text = json.dumps(planned(host, *words))
    assert "52:54:00:01:02:03" in text
    assert "virtio-net-pci,netdev=n,mac=" not in text


def test_a_file_names_the_vm(host: Host) -> None:
    host.write("/etc/vm.cfg", '[name]\n  guest = "web"\n', mode=0o644)
    by_file = planned(host, "-readconfig", "/etc/vm.cfg", "-nic", "nat")
    by_word = planned(host, "-name", "web", "-nic", "nat")
    assert by_file["nics"] == by_word["nics"]
    host.write("/etc/disk.cfg", '[drive "d"]\n  file = "/vm/a.img"\n', mode=0o644)
    by_file = planned(host, "-readconfig", "/etc/disk.cfg", "-nic", "nat")
    by_word = planned(host, "-drive", "file=/vm/a.img", "-nic", "nat")
    assert by_file["nics"] == by_word["nics"]


@pytest.mark.parametrize("address", ["224.0.0.5", "255.255.255.255", "[ff02::5]"])
def test_a_forward_of_nobodys_address_is_refused(host: Host, address: str) -> None:
    done = netwrap(host, "--", QEMU, *IDLE, "-nic", f"nat,hostfwd=udp:{address}:2222-:22")
    assert done.returncode == 125
    assert "is no address of one host" in done.stderr


def test_another_wrapper_is_told_its_place(host: Host) -> None:
    words = ("taskset", "-c", "0", QEMU, *IDLE, "-nic", "nat")
    done = host.run(COMMAND, "--", *words, check=False)
    assert f"put it in front: taskset -c 0 qemu-netwrap -- {QEMU} ..." in done.stderr
    assert done.returncode == 1


def test_a_larger_host_mtu_than_the_networks_is_told(host: Host) -> None:
    host.sh("ip link add br9 mtu 9000 type bridge")
    for net, says in (
        ("nat", "host_mtu=9000 is more than nat carries (1500)"),
        ("bridge,br=br9", ""),
    ):
        words = ("-netdev", f"{net},id=n", "-device", "virtio-net-pci,netdev=n,host_mtu=9000")
        shown = netwrap(host, "plan", QEMU, *words, check=True).stdout
        assert ("host_mtu=9000 is more" in shown) == bool(says)
        assert says in shown
        # -M none has no bus for the device: QEMU ends by itself.
        done = netwrap(host, "--", QEMU, *IDLE, *words)
        assert ("host_mtu=9000 is more" in done.stderr) == bool(says)
        netwrap(host, "wait", check=True)
    host.sh("ip link del br9")


def test_doctor_finds_the_uplink_of_a_host_without_ipv4(host: Host) -> None:
    host.sh("ip link add e1 type veth peer name e2; ip link set e2 up; ip link set e1 up")
    host.sh("ip -6 addr add 2001:db8::2/64 dev e1 nodad; ip -6 route add default via 2001:db8::1")
    shown = netwrap(host, "doctor").stdout
    assert "e1 could be put into a bridge" in shown
    host.sh("ip link del e1")
