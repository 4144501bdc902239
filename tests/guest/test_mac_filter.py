"""mac_filter: a guest is heard under its own MAC alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import Shell
from lab.netns import WEB_ADDRESS

if TYPE_CHECKING:
    from lab.netns import Uplinked

OTHERS: Final = "52:54:00:00:00:99"
NICS: Final = {
    "virtio": ("-nic", "nat,model=virtio"),
    "queues": (
        *("-netdev", "nat,id=n0,queues=2"),
        *("-device", "virtio-net-pci,netdev=n0,mq=on,vectors=6"),
    ),
    "hub": ("-net", "nat", "-net", "nic,model=virtio", "-net", "nic,model=virtio"),
}
CONFIG: Final = '[networks.nat]\nmode = "nat"\nmac_filter = false\n'


def change_mac(guest: Shell, mac: str) -> None:
    """Give the guest's eth0 another MAC; it speaks up for itself, so that nobody waits for it."""
    way = guest.lease.gateway
    guest.ask(f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up")
    guest.ask(f"ip route replace default via {way} dev eth0")


@pytest.mark.parametrize("nic", NICS)
def test_another_mac_is_not_heard(uplinked: Uplinked, nic: str) -> None:
    with Shell(uplinked.host, *NICS[nic], name="one") as one:
        own, there = one.mac, {WEB_ADDRESS, one.lease.gateway}
        assert one.reached(*there) == there
        change_mac(one, OTHERS)
        assert one.reached(*there) == set()
        change_mac(one, own)
        assert one.reached(*there) == there


def test_a_neighbours_mac_is_not_taken_over(uplinked: Uplinked) -> None:
    """Who sends under another's MAC gets nothing of what is for the other."""
    words = ("-nic", "nat,model=virtio")
    with (
        Shell(uplinked.host, *words, name="one") as one,
        Shell(uplinked.host, *words, name="two") as two,
    ):
        theirs = two.mac
        change_mac(one, theirs)
        assert one.reached(WEB_ADDRESS) == set()
        assert two.reached(WEB_ADDRESS) == {WEB_ADDRESS}


def test_switched_off(uplinked: Uplinked) -> None:
    """For guests that have guests of their own on a bridge."""
    uplinked.host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    with Shell(uplinked.host, "-nic", "nat,model=virtio", name="one") as one:
        change_mac(one, OTHERS)
        assert one.reached(WEB_ADDRESS) == {WEB_ADDRESS}


def test_what_comes_by_a_hub(uplinked: Uplinked) -> None:
    """Frames of whom QEMU's hub connects are not held against the guest whose tap it is."""
    nic = ("-net", "nic,model=virtio")
    hub = ("-net", "nat", "-net", "socket,listen=127.0.0.1:7")
    with Shell(uplinked.host, *hub, *nic, name="one") as one:
        one.wait_report("ready")  # who connects earlier is turned away
        to_hub = ("-net", "socket,connect=127.0.0.1:7")
        with Shell(uplinked.host, *to_hub, *nic, name="two") as two:
            for guest in (one, two):
                assert guest.reached(WEB_ADDRESS) == {WEB_ADDRESS}


def test_an_address_of_the_guests_own_choice(uplinked: Uplinked) -> None:
    """A guest that never asks DHCP reaches the gateway and the outside, beside one that does."""
    config = '[networks.nat]\nmode = "nat"\nsubnet = "192.168.0.0/24"\n'
    uplinked.host.write("/etc/qemu-netwrap/config.toml", config)
    words = ("-nic", "nat,model=virtio")
    there = {WEB_ADDRESS, "192.168.0.1"}
    with Shell(uplinked.host, *words, name="one", address="192.168.0.2/24") as one:
        one.ask("ip route add default via 192.168.0.1")
        assert one.reached(*there) == there
        with Shell(uplinked.host, *words, name="two") as two:
            assert two.lease.address != "192.168.0.2"
            assert two.reached(*there) == there
            assert one.reached(*there) == there
