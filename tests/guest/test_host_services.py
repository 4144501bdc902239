"""What guests reach of the host's own services: beside each kind of firewall, and without one."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell
from lab import neighbours
from lab.netns import UPLINK_ADDRESS, WEB_ADDRESS, WEB_BODY
from lab.tool import QEMU, netwrap, unhurried

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

BODY = "the host's own\n"
NAMED, CLOSED = 8080, 8081
PATIENCE = 60  # seconds: of a guest on a busy machine
NAT = ("-nic", "nat,model=virtio,hostfwd=tcp::2222-:80")
ANSWERS = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
HAS_IPV6 = (
    "until ip -6 -o address show dev eth0 scope global | grep -v tentative | grep -q inet6;"
    " do sleep 0.1; done"
)
CONFIG = '[networks.nat]\nmode = "nat"\nhost_services = {}\n'
CONFIGURED = "/etc/qemu-netwrap/config.toml"
NFT = """
table inet theirs {
    chain in {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "eth0" tcp dport 8081 accept
    }
}
"""


def nft(host: Host) -> None:
    host.run("nft", "-f", "-", input=NFT)


def iptables_nft(host: Host) -> None:
    for program in ("iptables-nft", "ip6tables-nft"):
        host.sh(f"{program} -A INPUT {ANSWERS}")
        host.sh(f"{program} -N closed; {program} -A closed -j REJECT; {program} -A INPUT -j closed")


def iptables_legacy(host: Host) -> None:
    for program in ("iptables-legacy", "ip6tables-legacy"):
        host.sh(f"{program} -P INPUT DROP; {program} -A INPUT {ANSWERS}")
        host.sh(f"{program} -A INPUT -i lo -j ACCEPT")
        host.sh(f"{program} -A INPUT -i eth0 -p tcp --dport 8081 -j ACCEPT")


def firewalld(host: Host) -> None:
    neighbours.firewalld(host)
    neighbours.use_firewalld_zone(host, "trusted")


def nobody(_: Host) -> None:
    """Leave the host without a firewall."""


def serve(host: Host) -> None:
    """Start the host's own services."""
    host.write("/run/own/index.html", BODY)
    for port in (NAMED, CLOSED):
        command = ("busybox", "httpd", "-f", "-p", str(port), "-h", "/run/own")
        host.popen(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host.wait_listening("tcp6", port)


def opened(guest: Shell, port: int, seconds: int = 3) -> set[str]:
    """Return the host's addresses where the guest gets the page of the host's on PORT.

    It waits SECONDS at each: a few where it is to get nothing, as a firewall may be silent.
    """
    gateway = guest.lease.gateway
    guest.ask(HAS_IPV6)
    shown = guest.host.sh("ip -6 -o address show dev qn-nat scope global").split()[3]
    gateway6 = f"[{shown.partition('/')[0]}]"
    found = set()
    for address in (gateway, UPLINK_ADDRESS, gateway6):
        page = guest.ask(f"timeout {seconds} wget -qO- 'http://{address}:{port}/' || true")
        found |= {address} if page == BODY else set()
    return found


def check_that_the_network_itself_works(guest: Shell) -> None:
    assert guest.get(f"http://{WEB_ADDRESS}/") == WEB_BODY
    assert WEB_ADDRESS in guest.lookup("www.example.test")
    assert guest.reached(guest.lease.gateway) == {guest.lease.gateway}
    # By the host's port, from its loopback.
    page = guest.host.run("busybox", "wget", "-qO-", "http://127.0.0.1:2222/").stdout
    assert page == "one\n"
    # What the host begins is answered.
    page = guest.host.run("busybox", "wget", "-qO-", f"http://{guest.lease.address}/").stdout
    assert page == "one\n"


@pytest.mark.parametrize("firewall", [nft, iptables_nft, iptables_legacy, firewalld])
def test_a_firewall_closes_the_hosts_services(
    firewall: Callable[[Host], None], uplinked: Uplinked, watch: Watch
) -> None:
    """All kinds alike: what is not named is closed, by whichever address of the host."""
    host = uplinked.host
    firewall(host)
    serve(host)
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        assert opened(guest, NAMED) == set()
        assert opened(guest, CLOSED) == set()
        check_that_the_network_itself_works(guest)
        guest.power_off()
        assert unhurried(guest.stderr) == ""


@pytest.mark.parametrize("firewall", [nft, iptables_nft, iptables_legacy, firewalld, nobody])
def test_services_that_are_named_are_open_and_no_others(
    firewall: Callable[[Host], None], uplinked: Uplinked, watch: Watch
) -> None:
    host = uplinked.host
    firewall(host)
    host.write(CONFIGURED, CONFIG.format(f'["tcp/{NAMED}"]'))
    serve(host)
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        assert len(opened(guest, NAMED, PATIENCE)) == 3
        assert opened(guest, CLOSED) == set()
        check_that_the_network_itself_works(guest)


@pytest.mark.parametrize("firewall", [nft, firewalld, nobody])
def test_all_services(firewall: Callable[[Host], None], uplinked: Uplinked, watch: Watch) -> None:
    """As before there was the key; without a firewall that is so by itself."""
    host = uplinked.host
    firewall(host)
    if firewall is not nobody:
        host.write(CONFIGURED, CONFIG.format('["all"]'))
    serve(host)
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        assert len(opened(guest, CLOSED, PATIENCE)) == 3


def test_plan_shows_what_is_closed(uplinked: Uplinked) -> None:
    host = uplinked.host
    planned = ("plan", QEMU, *NAT)
    assert "qn-nat_services" not in netwrap(host, *planned, check=True).stdout
    nft(host)
    shown = netwrap(host, *planned, check=True).stdout
    assert "chain qn-nat_services {" in shown
    assert "host_services" in shown
    host.run("nft", "delete table inet theirs")
