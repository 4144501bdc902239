"""An ordinary user's configured networks: each key does for real guests what it does for root's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guest.shell import Shell, page
from guest.test_mac_filter import OTHERS, change_mac
from lab.ipv6 import wait_global
from lab.netns import GATEWAY, UPLINK_ADDRESS, WEB_BODY, wait_for
from lab.tool import netwrap

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked
    from lab.user import User

PLACE: Final = ".config/qemu-netwrap/config.toml"
CONFIG: Final = f"""
[networks.lab]
mode = "nat"
subnet = "10.50.0.0/24"
dns = ["{GATEWAY}"]
hosts = {{ files = "192.0.2.9" }}
addresses = {{ web = "10.50.0.77" }}

[networks.apart]
mode = "nat"
isolated = true

[networks.closed]
mode = "host-only"
subnet = "10.60.0.0/24"
"""
SITE: Final = "http://www.example.test/"
SEND: Final = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(b"?", (sys.argv[1], 5353))
"""


def nic(network: str, more: str = "") -> tuple[str, str]:
    return "-nic", f"tap,network={network},model=virtio{more}"


def test_names_addresses_and_macs(user: User) -> None:
    """The host's own name server is out of reach: the network's is another one."""
    user.host.write("/etc/resolv.conf", "nameserver 192.0.2.55\n", mode=0o644)
    user.write(PLACE, CONFIG)
    with (
        Shell(user, *nic("lab"), name="web") as web,
        Shell(user, *nic("lab"), name="other") as other,
    ):
        assert web.lease.address == "10.50.0.77"
        assert web.lease.domain == "lab.internal"
        for name in ("files", "files.lab.internal"):
            assert "192.0.2.9\n" in other.lookup(name)
        assert other.get(SITE) == WEB_BODY
        assert other.reached("10.50.0.77") == {"10.50.0.77"}
        own = other.mac
        change_mac(other, OTHERS)
        assert other.reached("10.50.0.77", other.lease.gateway) == set()
        change_mac(other, own)
        assert other.reached("10.50.0.77") == {"10.50.0.77"}
    netwrap(user, "wait", check=True)


def test_isolated_guests(user: User) -> None:
    user.write(PLACE, CONFIG)
    with Shell(user, *nic("apart"), name="one") as one, Shell(user, *nic("apart")) as two:
        assert two.get(SITE) == WEB_BODY
        there = {two.lease.address, one.lease.gateway}
        assert one.reached(*there) == {one.lease.gateway}
        # Nor by way of the gateway, which routes.
        one.ask(f"ip route add {two.lease.address} via {one.lease.gateway}")
        two.ask(f"ip route add {one.lease.address} via {two.lease.gateway}")
        assert one.reached(*there) == {one.lease.gateway}
        assert one.get(SITE) == WEB_BODY
    netwrap(user, "wait", check=True)


def test_two_networks_of_one_guest(user: User) -> None:
    """It reaches its neighbour by the closed one, the world by the other."""
    user.write(PLACE, CONFIG)
    both = (*nic("closed"), *nic("lab"))
    with (
        Shell(user, *both, name="db") as db,
        Shell(user, *nic("closed"), name="web") as web,
    ):
        assert db.lease.gateway == "-"
        assert db.lease.address.startswith("10.60.0.")
        db.wait_report("ready")
        assert web.get("http://db/") == "db\n"
        db.ask("dhcp eth1")
        assert db.get(SITE) == WEB_BODY
        assert web.reached("10.50.0.1") == set()
    netwrap(user, "wait", check=True)


def test_ports_by_both_protocols_and_families(user6: User, uplinked6: Uplinked) -> None:
    """From beyond the host, by its localhost, from a neighbour; while that neighbour lives."""
    host, net = user6.host, uplinked6.net
    rules = ("tcp::8080-:80", "udp::5353-:53", "tcp:[::]:8080-:80", "udp:[::]:5353-:53")
    led = "".join(f",hostfwd={rule}" for rule in rules)
    with Shell(user6, "-nic", "nat,model=virtio", name="other") as other:
        wait_global(other)
        with Shell(user6, "-nic", f"nat,model=virtio{led}", name="web") as web:
            wait_global(web)
            for place, address in (
                *((host, each) for each in ("127.0.0.1", "[::1]", "[2001:db8:113::2]")),
                *((net, each) for each in (UPLINK_ADDRESS, "[2001:db8:113::2]")),
            ):
                assert page(place, f"{address}:8080") == "web\n", (place, address)
            assert other.get(f"http://{UPLINK_ADDRESS}:8080/") == "web\n"
            for place, address in ((net, UPLINK_ADDRESS), (host, "127.0.0.1")):
                assert_arrives(
                    web, place, address, "awk '/^Udp: [0-9]/ { print $3 }' /proc/net/snmp"
                )
            for place, address in ((net, "2001:db8:113::2"), (host, "::1")):
                assert_arrives(
                    web, place, address, "awk '/^Udp6NoPorts/ { print $2 }' /proc/net/snmp6"
                )
        netwrap(user6, "wait", str(web.pid), check=True)
        assert not host.listening("tcp", 8080)
        assert not host.listening("udp6", 5353)
        assert other.get("http://www6.example.test/") == WEB_BODY
    netwrap(user6, "wait", check=True)


def assert_arrives(guest: Shell, place: Host, address: str, count: str) -> None:
    """Assert that a datagram sent from PLACE gets to GUEST, which has no server: it counts that."""
    before = int(guest.ask(count))

    def arrives() -> bool:
        place.run("/usr/bin/python3", "-c", SEND, address)
        return int(guest.ask(count)) > before

    wait_for(arrives, f"a datagram by {address}")
