"""IPv6 on nat and host-only: guests get it by router advertisement, and reach what they may."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from guest.shell import Shell, link, page, reached, status
from lab.ipv6 import wait_global
from lab.netns import WEB_ADDRESS, WEB_BODY, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

WEB6 = "2001:db8:80::80"
NAT = ("-nic", "nat,model=virtio")


def gateway6(host: Host) -> ipaddress.IPv6Interface:
    """The gateway's address of the one network that is up."""
    (network,) = status(host)["networks"]
    return ipaddress.IPv6Interface(network["address6"])


def test_guest_reaches_the_world_and_only_the_host_reaches_it(uplinked6: Uplinked) -> None:
    host, net = uplinked6.host, uplinked6.net
    with Shell(host, *NAT, name="one") as one, Shell(host, *NAT, name="two") as two:
        addresses = {guest: wait_global(guest) for guest in (one, two)}
        gateway = gateway6(host)
        assert gateway.network.subnet_of(ipaddress.IPv6Network("fd00::/8"))
        assert all(address in gateway.network for address in addresses.values())
        assert "default via fe80::" in one.ask("ip -6 route")
        assert one.reached(str(gateway.ip)) == {str(gateway.ip)}

        assert one.get(f"http://[{WEB6}]/") == WEB_BODY
        assert WEB6 in one.ask(f"try 150 nslookup -type=aaaa www6.example.test {gateway.ip}")
        assert one.get("http://www6.example.test/") == WEB_BODY
        one.ask(f"try 5 ping -6 -c1 -s 1452 {WEB6}")  # with 48 bytes of headers

        assert one.get(f"http://[{addresses[two]}]/") == "two\n"
        assert page(host, f"[{addresses[one]}]") == "one\n"
        lookup = ("busybox", "nslookup", "-type=aaaa", "two.nat.internal", str(gateway.ip))
        wait_for(lambda: str(addresses[two]) in host.run(*lookup, check=False).stdout, "the name")
        shown = {a for run in status(host)["runs"] for nic in run["nics"] for a in nic["addresses"]}
        assert shown >= {str(address) for address in addresses.values()}

        # The internet is even told the way, which leads as far as the host.
        net.run("ip", "route", "add", str(gateway.network), "via", "2001:db8:113::2")
        assert reached(net, str(gateway.ip), str(addresses[one])) == {str(gateway.ip)}


def test_without(uplinked6: Uplinked, tmp_path: Path) -> None:
    host = uplinked6.host
    config = tmp_path / "config.toml"
    config.write_text('[networks.nat]\nmode = "nat"\nipv6 = false\n', encoding="utf-8")
    before = host.sysctl("net.ipv6.conf.eth0.forwarding")
    with Shell(host, *NAT, name="one", options=("--config", str(config))) as one:
        assert one.get(f"http://{WEB_ADDRESS}/") == WEB_BODY
        assert status(host)["networks"][0]["address6"] == ""
        assert "scope global" not in one.ask("ip -6 address show dev eth0")
        assert "default" not in one.ask("ip -6 route")
        assert host.sysctl("net.ipv6.conf.eth0.forwarding") == before


def test_host_only(uplinked6: Uplinked) -> None:
    host, net = uplinked6.host, uplinked6.net
    words = ("-nic", "host-only,model=virtio")
    with Shell(host, *words, name="one") as one, Shell(host, *words, name="two") as two:
        address, other = wait_global(one), wait_global(two)
        gateway = gateway6(host)
        assert one.reached(str(gateway.ip), str(other)) == {str(gateway.ip), str(other)}
        assert page(host, f"[{address}]") == "one\n"
        assert "default" not in one.ask("ip -6 route")
        # Not even where the guest makes itself a way, and the host routes for others.
        host.set_sysctl("net.ipv6.conf.all.forwarding", 1)
        one.ask(f"ip -6 route add default via {gateway.ip}")
        net.run("ip", "route", "add", str(gateway.network), "via", "2001:db8:113::2")
        assert one.reached(WEB6) == set()
        assert reached(net, str(address)) == set()
        host.set_sysctl("net.ipv6.conf.all.forwarding", 0)


def test_1400_end_to_end(uplinked6: Uplinked, watch: Watch) -> None:
    host, net = uplinked6.host, uplinked6.net
    for machine, device in ((host, "eth0"), (net, "peer0")):
        machine.run("ip", "link", "set", device, "mtu", "1400")
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as one:
        wait_global(one)
        assert link(host, "qn-nat")["mtu"] == 1400
        assert one.ask("cat /proc/sys/net/ipv6/conf/eth0/mtu") == "1400\n"
        # The first may be lost while the next hop is looked for.
        one.ask(f"ping -6 -c3 -s 1352 {WEB6}")
