"""Another DHCP or DNS server on the host that is bound to every address."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab.tool import IDLE, QEMU, netwrap, running

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

DNSMASQ = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
    *("--leasefile-ro", "--no-hosts", "--no-resolv"),
)


def start(host: Host, *options: str) -> None:
    host.popen(*DNSMASQ, *options, stderr=subprocess.DEVNULL)


def test_dhcp_server_on_every_interface(uplinked: Uplinked, watch: Watch) -> None:
    """It is told before anything is made, with the way out."""
    host = uplinked.host
    start(host, "--port=0", "--dhcp-range=203.0.113.50,203.0.113.60")
    host.wait_listening("udp", 67)
    watch.baseline(host)
    done = netwrap(host, "--", QEMU, *IDLE, "-netdev", "nat,id=n0")
    assert done.returncode == 125
    said = done.stderr.splitlines()
    assert said[0].endswith("another DHCP server has port 67 on every interface")
    assert "bind-dynamic" in said[1]


HOLD = """
import socket, sys, time
held = socket.socket(socket.AF_INET6, getattr(socket, sys.argv[1]))
held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
held.bind((sys.argv[2], int(sys.argv[3])))
print("held", flush=True)
time.sleep(10**6)
"""


def hold(host: Host, *what: str) -> None:
    """Have somebody bound to a port of IPv6 alone."""
    child = host.popen(sys.executable, "-c", HOLD, *what, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM"])
def test_name_server_on_every_address_of_ipv6_alone(
    kind: str, uplinked: Uplinked, watch: Watch
) -> None:
    """Our dnsmasq would be at the bridge's link-local address too."""
    host = uplinked.host
    hold(host, kind, "::", "53")
    watch.baseline(host)
    said = netwrap(host, "plan", QEMU, "-netdev", "nat,id=n0", check=True).stdout
    assert "port=10053\n" in said
    with running(host):
        pass


def test_servers_at_addresses_of_their_own(uplinked: Uplinked, watch: Watch) -> None:
    """As a caching name server at the loopback address: nothing is in the way."""
    host = uplinked.host
    hold(host, "SOCK_DGRAM", "::1", "53")
    watch.baseline(host)
    said = netwrap(host, "plan", QEMU, "-netdev", "nat,id=n0", check=True).stdout
    assert "port=" not in said
    with running(host):
        pass


def test_dhcpv6_server_at_an_address_of_its_own(uplinked: Uplinked, watch: Watch) -> None:
    """It wants the port on all of them, and dnsmasq says so."""
    host = uplinked.host
    hold(host, "SOCK_DGRAM", "::1", "547")
    watch.baseline(host)
    done = netwrap(host, "--", QEMU, *IDLE, "-netdev", "nat,id=n0")
    assert done.returncode == 125
    assert "DHCPv6 server socket" in done.stderr, done.stderr


def test_servers_content_with_their_interfaces(uplinked: Uplinked, watch: Watch) -> None:
    """As libvirt's dnsmasq is: nothing is in the way."""
    host = uplinked.host
    start(host, "--bind-interfaces", "--interface=eth0", "--dhcp-range=203.0.113.50,203.0.113.60")
    host.wait_listening("udp", 67)
    host.wait_listening("tcp", 53)
    watch.baseline(host)
    said = netwrap(host, "plan", QEMU, "-netdev", "nat,id=n0", check=True).stdout
    assert "port=" not in said
