"""nat: guests get all they need by DHCP, reach the world through the host, and each other."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell, page, reached, status
from lab.netns import UPLINK_ADDRESS, WEB_ADDRESS, WEB_BODY, wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap, unhurried

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

NAMES = "guest=web,debug-threads=on"
CONFIG = """\
[networks.lab]
mode = "nat"
subnet = "192.168.0.0/24"
dns = ["8.8.8.8"]
"""


def planned_gateway(host: Host, *words: str) -> ipaddress.IPv4Interface:
    """The gateway's IPv4 address that `qemu-netwrap plan` shows, with its subnet."""
    plan = json.loads(netwrap(host, "plan", "--json", "--", QEMU, *words, check=True).stdout)
    (network,) = plan["networks"]
    return ipaddress.IPv4Interface(network["address"])


@pytest.fixture
def named_server(uplinked: Uplinked) -> str:
    """A name server in the internet that alone knows a name, which is returned."""
    uplinked.net.run("ip", "address", "add", "8.8.8.8/32", "dev", "lo")
    uplinked.net.popen(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
        *("--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=8.8.8.8"),
        f"--host-record=known.to.one.test,{WEB_ADDRESS}",
    )
    wait_for(lambda: "08080808:0035" in uplinked.net.proc_net("udp"), "the named server")
    return "known.to.one.test"


def test_guest_reaches_the_world_and_only_the_host_reaches_it(uplinked: Uplinked) -> None:
    host, net = uplinked.host, uplinked.net
    words = ("-nic", "nat,model=virtio")
    planned = planned_gateway(host, "-name", NAMES, *words)
    gateway = str(planned.ip)
    with Shell(host, *words, name=NAMES) as web:
        lease = web.lease
        assert ipaddress.IPv4Interface(f"{lease.address}/{lease.length}") in planned.network
        assert (lease.gateway, lease.dns, lease.domain) == (gateway, gateway, "nat.internal")
        assert f"default via {gateway} dev eth0" in web.ask("ip route")
        resolver = f"search nat.internal\nnameserver {gateway}\n"
        assert web.ask("cat /etc/resolv.conf") == resolver
        assert WEB_ADDRESS in web.lookup("www.example.test")
        assert web.get("http://www.example.test/") == WEB_BODY

        assert page(host, lease.address) == f"{NAMES}\n"
        lookup = host.run("busybox", "nslookup", "-type=a", "web.nat.internal", gateway).stdout
        assert lease.address in lookup
        (run,) = status(host)["runs"]
        assert (run["name"], run["pid"], run["state"]) == ("web", web.pid, "running")
        assert run["nics"][0]["addresses"][0] == lease.address  # and what it has of IPv6
        assert run["nics"][0]["macs"] == [web.mac]

        # The internet is even told the way, which leads as far as the host.
        net.run("ip", "route", "add", str(planned.network), "via", UPLINK_ADDRESS)
        assert reached(net, gateway, lease.address) == {gateway}
        web.power_off()
        assert unhurried(web.stderr) == ""


def test_guests_on_one_network(uplinked: Uplinked, watch: Watch) -> None:
    """A plain tap is on nat too, where no bridge carries the default route."""
    host = uplinked.host
    # Frames between guests then pass our forward chain. Off, or not there, on some machines.
    host.run("sysctl", "-eqw", "net.bridge.bridge-nf-call-iptables=1")
    watch.baseline(host)
    netdev = ("-netdev", "nat,id=n0", "-device", "virtio-net-pci,netdev=n0")
    with (
        Shell(host, *netdev, name="one") as one,
        Shell(host, "-nic", "tap,model=virtio", name="two") as two,
    ):
        addresses = {one.lease.address, two.lease.address}
        assert len(addresses) == 2
        assert one.lease.gateway == two.lease.gateway
        assert len({one.mac, two.mac, "52:54:00:12:34:56"}) == 3
        assert one.get("http://two/") == "two\n"
        assert two.get("http://one/") == "one\n"
        assert one.get(f"http://{two.lease.address}/") == "two\n"
        assert two.get(f"http://{one.lease.address}/") == "one\n"

        one.power_off()
        wait_for(lambda: len(status(host)["runs"]) == 1, "the first guest's teardown")
        assert two.get("http://www.example.test/") == WEB_BODY


def test_only_guests_are_served_names(uplinked: Uplinked) -> None:
    """The name server of a network is none for those who can send packets to the host."""
    host, net = uplinked.host, uplinked.net
    qemu = host.popen(COMMAND, "--", QEMU, *IDLE, "-netdev", "nat,id=n0", stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(run["nics"] for run in status(host)["runs"]), "the network")
        gateway = status(host)["networks"][0]["address"].partition("/")[0]
        net.run("ip", "route", "add", gateway, "via", UPLINK_ADDRESS)
        lookup = ("busybox", "nslookup", "-type=a", "www.example.test", gateway)
        assert WEB_ADDRESS in host.run(*lookup).stdout
        assert WEB_ADDRESS not in net.run("timeout", "2", *lookup, check=False).stdout
    finally:
        qemu.kill()
        qemu.wait()


def test_named_network(uplinked: Uplinked, named_server: str, tmp_path: Path) -> None:
    host = uplinked.host
    config = tmp_path / "config.toml"
    config.write_text(CONFIG, encoding="utf-8")
    options = ("--config", str(config))
    by_option = (*options, "--network", "lab")
    with (
        Shell(host, "-nic", "tap,network=lab,model=virtio", name="one", options=options) as one,
        Shell(host, "-nic", "tap,model=virtio", name="two", options=by_option) as two,
    ):
        for guest in (one, two):
            assert guest.lease.address.startswith("192.168.0.")
            assert guest.lease.length == "24"
            assert (guest.lease.gateway, guest.lease.dns) == ("192.168.0.1", "192.168.0.1")
            assert guest.lease.domain == "lab.internal"
            assert WEB_ADDRESS in guest.lookup(named_server)
            assert guest.get(f"http://{WEB_ADDRESS}/") == WEB_BODY
        # What only the host's own name server knows is not asked of it.
        assert WEB_ADDRESS not in one.ask("nslookup -type=a www.example.test || true")
        assert one.get("http://two/") == "two\n"


def test_qemu_as_another_user(host: Host) -> None:
    """Its user's rights, no capability; and the network is there all the same."""
    options = ("--run-as", "nobody")
    nobody = host.run("id", "-u", "nobody").stdout.strip()
    group = host.run("id", "-g", "nobody").stdout.strip()
    groups = host.run("id", "-G", "nobody").stdout.split()
    with Shell(host, "-nic", "nat,model=virtio", options=options, for_all=True) as guest:
        assert guest.lease.gateway != "-"
        lines = host.read(f"/proc/{guest.pid}/status").splitlines()
        process = {
            name: value.split() for name, _, value in (line.partition(":") for line in lines)
        }
        assert process["Uid"] == [nobody] * 4
        assert process["Gid"] == [group] * 4
        assert process["Groups"] == groups
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(process[kind][0], 16) == 0, kind
