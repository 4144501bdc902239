"""Another DHCP or DNS server on the host that is bound to every address."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab.netns import WEB_ADDRESS, WEB_NAME, Host, link
from lab.tool import IDLE, QEMU, netwrap, running

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Uplinked

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
    assert "port=288\n" in said
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


# As an ordinary user, bind to a port by each address with each way of sharing; print what worked.
JOIN = """
import os, socket, sys
os.setgroups([])
os.setresgid(4242, 4242, 4242)
os.setresuid(4242, 4242, 4242)
gateway, device, port = sys.argv[1:]
shares = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
ways = [shares[:1], shares[1:], shares]
for address in (gateway, "0.0.0.0", "::", "::ffff:" + gateway):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        for shared in ways:
            for bound in (b"", device.encode()):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                each = socket.socket(family, kind)
                for option in shared:
                    each.setsockopt(socket.SOL_SOCKET, option, 1)
                if bound:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bound)
                try:
                    each.bind((address, int(port)))
                    if kind == socket.SOCK_STREAM:
                        each.listen()
                except PermissionError:
                    continue
                except OSError as error:
                    print(error.errno, end=" ")
                print(address, kind, shared, bound)
"""


def joined(host: Host, *more: str) -> str:
    """Return how an ordinary user joins in on the ports of nat's name server, and on MORE."""
    (network,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    gateway = network["address"].partition("/")[0]
    lines = host.run("ss", "-Hlun", "src", gateway).stdout.splitlines()
    ports = {line.split()[3].rpartition(":")[2] for line in lines}
    assert ports, lines
    words = (sys.executable, "-c", JOIN, gateway, "qn-nat")
    return "".join(host.run(*words, port).stdout for port in sorted({*ports, *more}))


def answers(host: Host) -> bool:
    """Tell whether guests' questions are answered: as a machine on the bridge asks them."""
    (network,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    gateway, _, length = network["address"].partition("/")
    with Host("guest") as guest:
        link(host, "port0", guest, "eth0")
        host.run("ip", "link", "set", "port0", "master", "qn-nat")
        own = f"{gateway.rpartition('.')[0]}.99/{length}"
        guest.run("ip", "address", "add", own, "dev", "eth0")
        try:
            done = guest.run("busybox", "nslookup", "-type=a", WEB_NAME, gateway, check=False)
        finally:
            host.run("ip", "link", "del", "port0")
    return WEB_ADDRESS in done.stdout


def serve_everywhere(host: Host) -> None:
    """Have a name server of the host's bound to every address."""
    start(host, "--port=53")
    host.wait_listening("udp", 53)


def test_no_user_joins_in_where_dns_has_moved(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    serve_everywhere(host)
    watch.baseline(host)
    with running(host):
        assert joined(host, "67", "547") == ""
        assert answers(host)


SQUAT = """
import os, socket, time
os.setresuid(4242, 4242, 4242)
held = []
for port in range(10053, 10063):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        held.append(socket.socket(socket.AF_INET6, kind))
        held[-1].bind(("::", port))
for port in range(1, 1024):
    try:
        held.append(socket.socket())
        held[-1].bind(("", port))
        print("taken:", port, flush=True)
    except PermissionError:
        pass
print("held", flush=True)
time.sleep(10**6)
"""


def test_no_user_keeps_networks_from_coming_up(uplinked: Uplinked, watch: Watch) -> None:
    """By taking the ports that DNS could move to."""
    host = uplinked.host
    serve_everywhere(host)
    child = host.popen(sys.executable, "-c", SQUAT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    watch.baseline(host)
    with running(host):
        assert answers(host)


@pytest.mark.parametrize(("open_from", "taken"), [(80, True), (54, True), (40, False)])
def test_ports_for_all_are_not_taken(
    uplinked: Uplinked, watch: Watch, open_from: int, *, taken: bool
) -> None:
    """Where the host lets everybody have low ports, as for rootless containers."""
    host = uplinked.host
    host.set_sysctl("net.ipv4.ip_unprivileged_port_start", open_from)
    if taken:
        serve_everywhere(host)
    watch.baseline(host)
    with running(host):
        assert joined(host) == ""
        assert answers(host)


def test_where_all_ports_are_for_all_it_is_told(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    host.set_sysctl("net.ipv4.ip_unprivileged_port_start", 0)
    watch.baseline(host)
    said = netwrap(host, "--", "true", "-nic", "nat", check=True).stderr
    netwrap(host, "wait", check=True)
    assert "any local user can answer its guests' DNS, DHCP" in said
    assert "sysctl -w net.ipv4.ip_unprivileged_port_start=" in said
    host.set_sysctl("net.ipv4.ip_unprivileged_port_start", 548)
    said = netwrap(host, "--", "true", "-nic", "nat", check=True).stderr
    netwrap(host, "wait", check=True)
    assert "local user" not in said
    host.set_sysctl("net.ipv4.ip_unprivileged_port_start", 0)
