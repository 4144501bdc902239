"""What an interface loses with its driver, noted and given back: on a link that is made anew."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host

_LINK = "ip link add nic0 type veth peer name far0; ip link set far0 up"
# The first route is by a device that stays; the last two follow a nexthop object.
_SETUP = """
ip link add other0 type bridge
ip link add br0 type bridge
ip link set other0 up
ip address add 203.0.113.1/24 dev other0
ip link set nic0 mtu 1400 address 52:54:00:00:00:77
echo 2 >/proc/sys/net/ipv4/conf/nic0/rp_filter
echo 0 >/proc/sys/net/ipv6/conf/nic0/accept_ra
ip link set nic0 up
ip address add 192.0.2.7/24 brd + dev nic0
ip address add 192.0.2.8/24 dev nic0 label nic0:1
ip address add 198.18.0.1/32 dev nic0 valid_lft 5000 preferred_lft 4000
ip address add 192.0.3.7/24 dev nic0 noprefixroute
ip address add 2001:db8::7/64 dev nic0 nodad
ip address add 2001:db8::8/64 dev nic0 nodad
ip route add default via 192.0.2.1 dev nic0 metric 50
ip route add default via 203.0.113.9 dev other0 metric 60
ip route add 198.51.100.0/24 via 192.0.2.2 dev nic0 table 77 mtu 1300
ip route add 198.51.101.0/24 dev nic0 src 192.0.2.8
ip -6 route add 2001:db8:1::/48 via 2001:db8::1 dev nic0
ip nexthop add id 7 via 192.0.2.3 dev nic0
ip route add 198.51.102.0/24 nhid 7
ip neighbour add 192.0.2.9 lladdr 52:54:00:00:00:99 dev nic0 nud permanent
ip neighbour add proxy 192.0.2.10 dev nic0
"""
_IMPORT = "import sys; from qemu_netwrap.linux.netlink import interface_state as state;"
_SAVE = f"{_IMPORT} print(state.save(sys.argv[1]))"
_RESTORE = f"{_IMPORT} state.restore(*sys.argv[1:])"
# Without what the kernel's workers bring a moment later: the carrier, and what follows from it.
_LOOK = """
carrier='s/ state [A-Z]*//; s/NO-CARRIER,//; s/,LOWER_UP//; s/ tentative//'
ip -d link show nic0 | sed "s/^[0-9]*: //; s/ qdisc [a-z]*//; s/ minmtu.*//; $carrier"
ip address show dev nic0 |
    sed "s/^[0-9]*: //; s/ qdisc [a-z]*//; s/valid_lft [0-9].*//; /inet6 fe80/,+1d; $carrier"
ip route show table all | grep -vE 'far0|other0|fe80' | sed 's/ linkdown//' | sort
ip -6 route show table all | grep -vE 'far0|other0|fe80|^(local|anycast|multicast) ' |
    sed 's/ linkdown//' | sort
ip nexthop show
ip neighbour show nud permanent
ip neighbour show proxy
grep -rs '' /proc/sys/net/ipv4/conf/nic0 /proc/sys/net/ipv6/conf/nic0 | grep -v stable_secret | sort
"""


def python(host: Host, *words: str) -> str:
    return host.run(sys.executable, "-c", *words).stdout.rstrip("\n")


@pytest.mark.parametrize("more", ["", "ip link set nic0 down", "ip link set nic0 master br0"])
def test_comes_back(host: Host, more: str) -> None:
    host.run("sh", "-euc", f"{_LINK}\n{_SETUP}\n{more}")
    before = host.run("sh", "-euc", _LOOK).stdout
    saved = python(host, _SAVE, "nic0")
    host.run("ip", "link", "del", "nic0")
    # Another one has come meanwhile, so that it has another number; and the driver's own name.
    host.run("sh", "-euc", f"ip link add late0 type bridge\n{_LINK.replace('nic0', 'eth9')}")
    python(host, _RESTORE, "eth9", saved)
    wait_for(lambda: host.run("sh", "-euc", _LOOK).stdout == before, "what there was")
    host.run("sh", "-euc", "for each in nic0 other0 br0 late0; do ip link del $each; done")


def test_whose_name_is_taken(host: Host) -> None:
    host.run("sh", "-euc", _LINK)
    saved = python(host, _SAVE, "nic0")
    host.run("sh", "-euc", _LINK.replace("nic0", "eth9").replace("far0", "far9"))
    done = host.run(sys.executable, "-c", _RESTORE, "eth9", saved, check=False)
    assert "cannot have its name back: another has it" in done.stderr
    host.run("sh", "-euc", "ip link del nic0; ip link del eth9")


def test_whose_driver_refuses_the_mac_for_a_moment(host: Host) -> None:
    """As that of a virtual function does, until it has heard from the physical one.

    Here it is a macvlan's, which takes no MAC that another one on its interface has.
    """
    own = "52:54:00:00:00:01"
    make = "ip link add {} address {} mtu {} link low0 type macvlan mode private; ip link set {} up"
    host.sh(f"{_LINK.replace('nic0', 'low0')}; ip link set low0 up")
    host.sh(make.format("nic0", own, 1400, "nic0"))
    saved = python(host, _SAVE, "nic0")
    host.sh("ip link del nic0")
    host.sh(make.format("other0", own, 1300, "other0"))
    host.sh("ip link add nic0 mtu 1300 link low0 type macvlan mode private")
    host.sh("ip link set nic0 up")
    assert host.run("ip", "link", "set", "nic0", "address", own, check=False).returncode
    restoring = host.popen(sys.executable, "-c", _RESTORE, "nic0", saved)
    wait_for(lambda: "mtu 1400" in host.sh("ip link show nic0"), "the MTU")
    host.sh("ip link del other0")
    assert restoring.wait(30) == 0
    assert own in host.sh("ip link show nic0")
    host.sh("ip link del low0")


def test_whose_driver_refuses_the_mac(host: Host) -> None:
    """An interface that is up with another MAC than it had is no success."""
    host.sh(_LINK)
    saved = python(host, _SAVE, "nic0")
    old = next(field for field in saved.split("\t") if field.startswith("mac="))
    refused = saved.replace(old, "mac=00:00:00:00:00:00")
    done = host.run(sys.executable, "-c", _RESTORE, "nic0", refused, check=False)
    assert "cannot have its MAC 00:00:00:00:00:00 back: Cannot assign requested" in done.stderr
    host.sh("ip link del nic0")


def test_whose_addresses_are_over(host: Host) -> None:
    """What led by them would have gone with them: it is no failure that it does not come back."""
    host.sh(_LINK)
    host.sh(
        "ip link set nic0 up; ip address add 192.0.2.7/24 dev nic0\n"
        "ip address add 198.18.0.1/24 dev nic0 valid_lft 5000 preferred_lft 4000\n"
        "ip address add 2001:db8::7/64 dev nic0 nodad valid_lft 5000 preferred_lft 4000\n"
        "ip route add default via 198.18.0.9 dev nic0\n"
        "ip route add 198.51.100.0/24 dev nic0 src 198.18.0.1\n"
        "ip route add 198.51.101.0/24 via 192.0.2.1 dev nic0\n"
        "ip -6 route add 2001:db8:1::/48 via 2001:db8::1 dev nic0\n"
        "ip nexthop add id 7 via 198.18.0.3 dev nic0; ip route add 198.51.102.0/24 nhid 7\n"
    )
    saved = python(host, _SAVE, "nic0")
    at = next(field for field in saved.split("\t") if field.startswith("at="))
    early = f"at={int(at.removeprefix('at=')) - 6000}"
    host.sh(f"ip link del nic0; {_LINK}")
    python(host, _RESTORE, "nic0", saved.replace(at, early))
    assert "192.0.2.7/24" in host.sh("ip address show dev nic0")
    assert "198.18.0.1" not in host.sh("ip address show dev nic0")
    routes = host.sh("ip route show table main")
    assert "198.51.101.0/24 via 192.0.2.1" in routes
    assert "198.18.0" not in routes
    host.sh("ip link del nic0")


def test_taking_what_has_gone(host: Host) -> None:
    """Addresses that have gone, with their interface or with all of its IPv6, are taken."""
    take = (
        "import subprocess, sys\n"
        "from qemu_netwrap.linux.netlink.interface_copy import InterfaceNetlink, addresses_taken\n"
        "mover = InterfaceNetlink()\n"
        "link = mover.link('nic0')\n"
        "had = mover.belongings(link.index)\n"
        "assert len(had.movable) == 2\n"
        "subprocess.run(sys.argv[1].split(), check=True)\n"
        "mover.batch(addresses_taken(had, link))\n"
    )
    for gone in ("address flush dev nic0", "link set nic0 mtu 1000", "link del nic0"):
        host.sh(_LINK)
        host.sh("ip link set nic0 up; ip address add 192.0.2.7/24 dev nic0")
        host.sh("ip address add 2001:db8::7/64 dev nic0 nodad")
        python(host, take, f"ip {gone}")
        host.sh("[ ! -e /sys/class/net/nic0 ] || ip link del nic0")
