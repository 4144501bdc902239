"""hostfwd: ports of the host that lead to a guest, from wherever one may come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from guest import shell
from guest.shell import Shell, status
from lab.ipv6 import wait_global
from lab.netns import UPLINK_ADDRESS, wait_for
from lab.tool import netwrap

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

WEB: Final = "nat,model=virtio,hostfwd=tcp::8080-:80,hostfwd=udp::5353-:53"


def page(host: Host, address: str, port: int = 8080) -> str:
    """The page that one gets there."""
    return shell.page(host, f"{address}:{port}")


def is_closed(host: Host, address: str, port: int = 8080) -> bool:
    """Whether nobody answers there; it may be that packets are dropped."""
    url = f"http://{address}:{port}/"
    return host.run("timeout", "5", "busybox", "wget", "-qO-", url, check=False).stdout == ""


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_from_everywhere(uplinked: Uplinked, watch: Watch, bridged: str) -> None:
    """From the LAN, from the host, from a neighbour; with br_netfilter and without."""
    host, net = uplinked.host, uplinked.net
    host.run("sysctl", "-eqw", f"net.bridge.bridge-nf-call-iptables={bridged}")
    watch.baseline(host)
    with (
        Shell(host, "-nic", WEB, name="web") as web,
        Shell(host, "-nic", "nat,model=virtio", name="other") as other,
    ):
        gateway = web.lease.gateway
        own = ("127.0.0.1", "127.0.0.2", UPLINK_ADDRESS, gateway)
        other.wait_report("ready")
        web.wait_report("ready")
        assert [page(host, address) for address in own] == ["web\n"] * len(own)
        assert page(net, UPLINK_ADDRESS) == "web\n"
        for address in (UPLINK_ADDRESS, gateway):
            assert other.get(f"http://{address}:8080/") == "web\n"
        # And the guest itself is reached as before.
        assert page(host, web.lease.address, 80) == "web\n"
        assert is_closed(net, UPLINK_ADDRESS, 80)

        (run,) = (run for run in status(host)["runs"] if run["name"] == "web")
        (nic,) = run["nics"]
        # What the host has learned of the guest's IPv6 addresses by now is behind that.
        assert [each for each in nic["addresses"] if ":" not in each] == [web.lease.address]
        found = [(f["protocol"], f["port"], f["guest"]) for f in nic["forwards"]]
        assert found == [
            ("tcp", 8080, web.lease.address),
            ("udp", 5353, web.lease.address),
        ]
        assert f"tcp *:8080  {web.lease.address}:80\n" in netwrap(host, "ps").stdout
        web.power_off()
        wait_for(lambda: len(status(host)["runs"]) == 1, "the web server's teardown")
        assert is_closed(host, "127.0.0.1")
        assert is_closed(net, UPLINK_ADDRESS)
        assert "web" not in other.ask(f"timeout 3 wget -qO- http://{gateway}:8080/ 2>&1 || true")


def test_for_one_address(uplinked: Uplinked) -> None:
    """As they are with slirp: for one address of the host's alone; a typed guest gets its own."""
    host, net = uplinked.host, uplinked.net
    subnet = '[networks.nat]\nmode = "nat"\nsubnet = "10.50.0.0/24"\n'
    host.write("/etc/qemu-netwrap/config.toml", subnet)
    nic = f"nat,model=virtio,hostfwd=:127.0.0.1:81-:80,hostfwd=:{UPLINK_ADDRESS}:82-10.50.0.77:80"
    with Shell(host, "-nic", nic, name="web") as web:
        assert web.lease.address == "10.50.0.77"
        web.wait_report("ready")
        assert page(host, "127.0.0.1", 81) == page(host, UPLINK_ADDRESS, 82) == "web\n"
        assert page(net, UPLINK_ADDRESS, 82) == "web\n"
        closed = (
            (host, UPLINK_ADDRESS, 81),
            (host, "127.0.0.1", 82),
            (host, web.lease.gateway, 82),
            (net, UPLINK_ADDRESS, 81),
        )
        assert [each for each in closed if not is_closed(*each)] == []


def test_the_address_stays(uplinked: Uplinked) -> None:
    """A VM that is started again is reached as before, whatever others have leased meanwhile."""
    host = uplinked.host
    addresses = []
    for _ in range(2):
        with Shell(host, "-nic", WEB, name="web") as web:
            addresses.append(web.lease.address)
            web.wait_report("ready")
            assert page(host, "127.0.0.1") == "web\n"
        netwrap(host, "wait", check=True)
    assert addresses[0] == addresses[1]


def test_ipv6_from_everywhere(uplinked6: Uplinked) -> None:
    """As IPv4, and beside it: the port is there for both."""
    host, net = uplinked6.host, uplinked6.net
    nic = "nat,model=virtio,hostfwd=tcp::8080-:80,hostfwd=tcp:[::]:8080-:80"
    with (
        Shell(host, "-nic", nic, name="web") as web,
        Shell(host, "-nic", "nat,model=virtio", name="other") as other,
    ):
        address = str(wait_global(web))
        wait_global(other)
        (gateway,) = (n["address6"].partition("/")[0] for n in status(host)["networks"])
        own = ("::1", "2001:db8:113::2", gateway)
        assert [page(host, f"[{each}]") for each in own] == ["web\n"] * len(own)
        assert page(host, "127.0.0.1") == "web\n"
        assert page(net, "[2001:db8:113::2]") == "web\n"
        for each in own[1:]:
            assert other.get(f"http://[{each}]:8080/") == "web\n"
        (run,) = (run for run in status(host)["runs"] if run["name"] == "web")
        assert [f["guest"] for f in run["nics"][0]["forwards"]] == [web.lease.address, address]
        assert is_closed(net, f"[{address}]", 80)
