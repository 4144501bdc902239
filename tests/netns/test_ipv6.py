"""IPv6 forwarding of a real kernel, switched on for guests and given back."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import reached
from lab.hooked import wait_gone
from lab.ipv6 import advertise, before_6_17
from lab.lan import settled
from lab.leaks import snapshot, wait_same
from lab.netns import link, wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.fixtures import HostFactory, Watch
    from lab.netns import Host, Uplinked

FORWARDING: Final = "net.ipv6.conf.all.forwarding"
FORCE: Final = "/proc/sys/net/ipv6/conf/default/force_forwarding"
WEB6: Final = "2001:db8:80::80"
B: Final = "fd00:1:2:3::/64"
OLD: Final = (False, True)
WAYS: Final = ("by device", "global switch")
ACCEPT_RA: Final = "net.ipv6.conf.eth0.accept_ra"


@contextlib.contextmanager
def running(host: Host, *words: str) -> Iterator[None]:
    """Have a QEMU running that does nothing, with its networks up."""
    words = words or ("-netdev", "nat,id=n0")
    runs = len(shown(host)["runs"])
    qemu = host.popen(COMMAND, "--", QEMU, *IDLE, *words, stderr=subprocess.PIPE)
    try:
        wait_for(
            lambda: (
                qemu.poll() is not None
                or sum(bool(run["nics"]) for run in shown(host)["runs"]) > runs
            ),
            "the network",
        )
        yield
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(host, "wait", str(qemu.pid), check=True)


def shown(host: Host) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = json.loads(netwrap(host, "ps", "--json").stdout)
    return found


def default_routes(host: Host) -> str:
    return host.run("ip", "-6", "route", "show", "default").stdout


@pytest.fixture
def learning(uplinked6: Uplinked, watch: Watch, *, old: bool) -> Uplinked:
    """Return a machine that has its default route by router advertisement."""
    host = uplinked6.host
    if old:
        before_6_17(host)
    host.run("ip", "-6", "route", "del", "default")
    advertise(uplinked6)
    wait_for(lambda: "proto ra" in default_routes(host), "the default route")
    settled(host)
    watch.baseline(host)
    return uplinked6


def switched(host: Host) -> tuple[str, str]:
    return host.sysctl(FORWARDING), host.sysctl(ACCEPT_RA)


@pytest.mark.parametrize("old", OLD, ids=WAYS)
def test_what_was_learned_from_routers_stays(learning: Uplinked, *, old: bool) -> None:
    host = learning.host
    before = default_routes(host).split("expires")[0]
    on = "1" if old or not has_force(host) else "0"
    with running(host):
        assert switched(host) == (on, "2")
        assert default_routes(host).startswith(before)
        with running(host, "-netdev", "nat,id=n0"):
            pass
        assert switched(host) == (on, "2")
    assert switched(host) == ("0", "1")
    assert default_routes(host).startswith(before)


@pytest.mark.parametrize("old", [True])
class TestBefore617:
    """Where there is but the global switch."""

    def test_what_somebody_sets_meanwhile_stays(self, learning: Uplinked, watch: Watch) -> None:
        host = learning.host
        with running(host):
            host.set_sysctl(ACCEPT_RA, 0)
            host.set_sysctl(FORWARDING, 0)
        assert switched(host) == ("0", "0")
        host.set_sysctl(ACCEPT_RA, 1)
        with running(host):
            pass
        wait_gone(host)
        watch.baseline(host)

    def test_devices_that_forwarded_each_for_itself(self, learning: Uplinked, watch: Watch) -> None:
        host = learning.host
        host.run("ip", "link", "add", "own0", "type", "bridge")
        host.set_sysctl("net.ipv6.conf.own0.forwarding", 1)
        watch.baseline(host)
        with running(host):
            host.run("ip", "link", "add", "late0", "type", "bridge")
            # It is to listen to its routers, as before.
            assert host.sysctl("net.ipv6.conf.late0.forwarding") == "0"
            host.run("ip", "link", "del", "late0")
        assert host.sysctl("net.ipv6.conf.own0.forwarding") == "1"

    def test_a_host_that_routes_already_is_let_be(self, learning: Uplinked, watch: Watch) -> None:
        host = learning.host
        host.set_sysctl(FORWARDING, 1)
        watch.baseline(host)
        before = settings(host)
        with running(host):
            assert settings(host) == before

    def test_after_a_crash(self, learning: Uplinked) -> None:
        host = learning.host
        before = snapshot(host)
        qemu = host.popen(COMMAND, "--", QEMU, *IDLE, "-netdev", "nat,id=n0")
        wait_for(lambda: any(run["nics"] for run in shown(host)["runs"]), "the network")
        assert switched(host) == ("1", "2")
        for pid, command in host.processes().items():
            if "waiter.py" in command:
                host.run("kill", "-9", str(pid))
        qemu.kill()
        qemu.wait()
        netwrap(host, "gc", check=True)
        wait_same(host, before)


@pytest.mark.parametrize("old", OLD, ids=WAYS)
class TestNeighbours:
    """Two machines beside the host, each told that the host is the way to the other."""

    @pytest.fixture
    def between(
        self, uplinked6: Uplinked, host_factory: HostFactory, watch: Watch, old: bool
    ) -> tuple[Host, Host, Host]:
        host, net = uplinked6.host, uplinked6.net
        other = host_factory("other")
        link(host, "eth1", other, "eth0")
        addresses = ((host, "eth1", "2001:db8:114::1/64"), (other, "eth0", "2001:db8:114::2/64"))
        for machine, device, address in addresses:
            machine.run("ip", "address", "add", address, "dev", device, "nodad")
        other.run("ip", "route", "add", "default", "via", "2001:db8:114::1")
        net.run("ip", "route", "add", "2001:db8:114::/64", "via", "2001:db8:113::2")
        if old:
            before_6_17(host)
        watch.baseline(host, other)
        return host, net, other

    def test_the_host_does_not_become_their_router(self, between: tuple[Host, Host, Host]) -> None:
        host, net, other = between
        with running(host):
            assert reached(other, "2001:db8:114::1") == {"2001:db8:114::1"}
            assert reached(other, "2001:db8:113::1", WEB6) == set()
            assert reached(net, "2001:db8:114::2") == set()

    def test_a_router_goes_on_routing(self, between: tuple[Host, Host, Host]) -> None:
        host, net, other = between
        host.set_sysctl(FORWARDING, 1)
        with running(host):
            assert reached(other, WEB6) == {WEB6}
            assert reached(net, "2001:db8:114::2") == {"2001:db8:114::2"}
        host.set_sysctl(FORWARDING, 0)

    def test_bridged_frames_of_others_pass(
        self, between: tuple[Host, Host, Host], watch: Watch
    ) -> None:
        """With br_netfilter they come by the rules, as if they were forwarded."""
        host, net, other = between
        script = """
            sysctl -eqw net.bridge.bridge-nf-call-ip6tables=1
            ip link add br7 type bridge
            ip address flush dev eth0
            ip address flush dev eth1
            ip link set eth0 master br7
            ip link set eth1 master br7
            echo 0 >/proc/sys/net/ipv6/conf/br7/accept_dad
            ip link set br7 up
            ip address add 2001:db8:113::2/64 dev br7 nodad
            ip -6 route replace default via 2001:db8:113::1 dev br7
        """
        host.run("sh", "-euc", script)
        other.run("ip", "address", "add", "2001:db8:113::7/64", "dev", "eth0", "nodad")
        wait_for(lambda: bool(reached(other, "2001:db8:113::1")), "the bridge")
        watch.baseline(host, other)
        with running(host):
            assert reached(other, "2001:db8:113::1") == {"2001:db8:113::1"}
            assert reached(net, "2001:db8:113::7") == {"2001:db8:113::7"}


def test_two_networks_at_once(uplinked6: Uplinked, watch: Watch, tmp_path: Path) -> None:
    """What the one needs stays when the other goes; neither is in the other's way."""
    host = uplinked6.host
    config = tmp_path / "config.toml"
    config.write_text(f'[networks.b]\nmode = "nat"\nsubnet6 = "{B}"\n', encoding="utf-8")
    before_6_17(host)
    watch.baseline(host)
    options = ("--config", str(config))
    netwrap(host, *options, "network", "up", "nat", check=True)
    netwrap(host, *options, "network", "up", "b", check=True)
    netwrap(host, *options, "network", "down", "nat", check=True)
    assert host.sysctl(FORWARDING) == "1"
    found = {network["name"]: network["address6"] for network in shown(host)["networks"]}
    assert found == {"b": "fd00:1:2:3::1/64"}
    netwrap(host, *options, "network", "down", "b", check=True)
    assert host.sysctl(FORWARDING) == "0"


@pytest.mark.parametrize("where", ["default", "all"])
def test_a_host_without_ipv6(uplinked: Uplinked, watch: Watch, where: str) -> None:
    host = uplinked.host
    host.set_sysctl(f"net.ipv6.conf.{where}.disable_ipv6", 1)
    watch.baseline(host)
    plan = netwrap(host, "plan", "--", QEMU, "-nic", "nat", check=True).stdout
    assert "# no IPv6: net.ipv6.conf.default.disable_ipv6 is 1" in plan
    with running(host):
        (network,) = shown(host)["networks"]
        assert network["address6"] == ""
        assert host.run("ip", "-6", "address", "show", "dev", "qn-nat").stdout == ""


def test_an_uplink_that_comes_later(uplinked: Uplinked, watch: Watch) -> None:
    """Who joins a network finds that its host has IPv6 by now."""
    host = uplinked.host
    with running(host):
        host.run("ip", "address", "add", "2001:db8:113::2/64", "dev", "eth0", "nodad")
        host.run("ip", "route", "add", "default", "via", "2001:db8:113::1", "dev", "eth0")
        key = "force_forwarding" if has_force(host) else "accept_ra"
        expected = "1" if has_force(host) else host.sysctl("net.ipv6.conf.eth0.accept_ra")
        with running(host, "-netdev", "nat,id=n0"):
            assert host.sysctl(f"net.ipv6.conf.eth0.{key}") == expected
            assert has_force(host) or host.sysctl(FORWARDING) == "1"
            assert "qn-nat_guard6_eth0" in host.run("nft", "list", "ruleset").stdout
    wait_gone(host)
    watch.baseline(host)  # its address and route
    assert not has_force(host) or host.sysctl("net.ipv6.conf.eth0.force_forwarding") == "0"


def test_a_prefix_that_is_taken(uplinked6: Uplinked, watch: Watch, tmp_path: Path) -> None:
    host = uplinked6.host
    plan = json.loads(netwrap(host, "plan", "--json", "--", QEMU, "-nic", "nat").stdout)
    taken = plan["networks"][0]["address6"].replace("::1/64", "::/64")
    host.run("ip", "route", "add", taken, "dev", "eth0")
    host.run("ip", "route", "add", "unreachable", "fd00::/8")
    watch.baseline(host)
    with running(host):
        (network,) = shown(host)["networks"]
        assert network["address6"]
        assert not network["address6"].startswith(taken.removesuffix("/64"))
    config = tmp_path / "config.toml"
    config.write_text(f'[networks.nat]\nmode = "nat"\nsubnet6 = "{taken}"\n', encoding="utf-8")
    failed = netwrap(host, "--config", str(config), "network", "up", "nat")
    assert failed.returncode == 125
    assert f"subnet6 {taken} overlaps the host's route {taken} dev eth0" in failed.stderr


def has_force(host: Host) -> bool:
    return not host.run("test", "-e", FORCE, check=False).returncode


def settings(host: Host) -> str:
    """What concerns routing, of the devices that were there before."""
    names = ("all", "default", "eth0", "lo")
    keys = ("forwarding", "accept_ra", "force_forwarding")
    paths = [f"/proc/sys/net/ipv6/conf/{name}/{key}" for name in names for key in keys]
    return host.run("grep", "-s", "", *paths, check=False).stdout


@pytest.mark.parametrize("old", OLD, ids=WAYS)
def test_doctor_knows_the_way(uplinked6: Uplinked, watch: Watch, *, old: bool) -> None:
    host = uplinked6.host
    if old:
        before_6_17(host)
        watch.baseline(host)
    done = netwrap(host, "doctor", "--json")
    lines = json.loads(done.stdout)["lines"]
    (found,) = (line["found"] for line in lines if line["what"] == "IPv6")
    assert found.startswith("out by eth0; ")
    assert ("net.ipv6.conf.all.forwarding" in found) == (old or not has_force(host))


def test_dhcpv6(host_factory: HostFactory, tmp_path: Path) -> None:
    """Who asks by DHCPv6 gets an address too, and the name server; the name is the network's."""
    host, client = host_factory("host"), host_factory("client")
    config = tmp_path / "config.toml"
    # Nobody has started the client, whose MAC is known nowhere.
    config.write_text('[networks.nat]\nmode = "nat"\nmac_filter = false\n', encoding="utf-8")
    netwrap(host, "--config", str(config), "network", "up", "nat", check=True)
    link(host, "port0", client, "eth0")
    host.run("ip", "link", "set", "port0", "master", "qn-nat")
    gateway = ipaddress.IPv6Interface(shown(host)["networks"][0]["address6"])
    client.write("/run/dhclient.conf", 'send fqdn.fqdn "client";\n')
    ask = ("dhclient", "-6", "-1", "-cf", "/run/dhclient.conf", "-sf", "/bin/true")
    client.run(*ask, "-lf", "/run/leases", "-pf", "/run/dhclient.pid", "eth0")
    leases = client.read("/run/leases")
    address = ipaddress.IPv6Address(leases.partition("iaaddr ")[2].split()[0])
    assert address in gateway.network
    assert f"option dhcp6.name-servers {gateway.ip};" in leases
    mac = json.loads(host.run("ip", "-j", "link", "show", "qn-nat").stdout)[0]["address"]
    duid = "".join(f":{byte.lstrip('0') or '0'}" for byte in f"00:03:00:01:{mac}".split(":"))
    assert f"option dhcp6.server-id {duid[1:]};" in leases
    lookup = ("busybox", "nslookup", "-type=aaaa", "client.nat.internal", str(gateway.ip))
    assert str(address) in host.run(*lookup).stdout
    client.run(
        "sh",
        "-c",
        'kill "$(cat /run/dhclient.pid)"; ip link del eth0; rm /run/*eases* /run/dhclient.pid',
    )
    netwrap(host, "network", "down", "nat", check=True)
