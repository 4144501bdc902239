"""A NIC of the host goes into a bridge with all it has, and gets it back, on the real kernel."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.hooked import SCRIPTS, end, start, wait_gone
from lab.lan import (
    MACHINE,
    MACHINE6,
    OTHER,
    ROUTER,
    ROUTER6,
    Lan,
    batch,
    configure,
    enrich,
    lan,
    settled,
)
from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap
from lab.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

WORDS = ("-nic", "bridge,br=br0,uplink=eth0")
YES = ("--yes-uplink",)
CONFIG_PATH = "/etc/qemu-netwrap/config.toml"
LAN_DEFAULT = 'default = "lan"\n[networks.lan]\nmode = "bridge"\nbridge = "br0"\nuplink = "eth0"\n'
HELPER = str(Path(sys.executable).with_name("qemu-netwrap-bridge-helper"))


@pytest.fixture
def bare(lab: None) -> Iterator[Lan]:
    with lan(configured=False) as found:
        yield found


@pytest.fixture
def net(bare: Lan) -> Lan:
    configure(bare.machine)
    return bare


@contextlib.contextmanager
def running(
    host: Host, *options: str, words: tuple[str, ...] = WORDS
) -> Iterator[subprocess.Popen[str]]:
    """Run a QEMU, whose network is there by then and gone afterwards."""
    qemu = host.popen(COMMAND, *options, "--", QEMU, *IDLE, *words, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: qemu.poll() is not None or is_qemu(qemu), "QEMU")
        assert qemu.poll() is None, qemu.communicate()[1]
        yield qemu
    finally:
        qemu.kill()
        qemu.communicate()
        netwrap(host, "wait", str(qemu.pid), check=True)


def is_qemu(process: subprocess.Popen[str]) -> bool:
    with open(f"/proc/{process.pid}/comm", encoding="utf-8") as file:
        return file.read().startswith("qemu-system")


def ip(host: Host, words: str) -> str:
    return host.run("ip", *words.split()).stdout


def master(host: Host, device: str) -> str:
    link = json.loads(ip(host, f"-j link show {device}"))[0]
    return str(link.get("master", ""))


def shown(host: Host, device: str) -> dict[str, list[str]]:
    """What a user sees of a device's addresses and routes, without names and remaining times."""
    texts = {words: ip(host, words.format(device)) for words in SHOWN}
    return {
        words: [w for w in text.replace(device, "DEV").split() if not w.endswith("sec")]
        for words, text in texts.items()
    }


SHOWN = (
    "-4 -brief address show dev {}",
    "-6 -brief address show dev {} scope global",
    "-4 address show dev {}",
    "-4 route show table main",
    "-4 route show table 7",
    "-6 route show table 7",
    "-6 route show proto boot",
    "-6 route show proto ra",
    "nexthop show",
    "neighbour show nud permanent dev {}",
)


def test_everything_goes_in_and_comes_back(bare: Lan) -> None:
    host = bare.machine
    enrich(host)
    before, had = snapshot(host), shown(host, "eth0")
    with running(host, *YES):
        has = shown(host, "br0")
        # These tell of the link as well.
        for words in SHOWN[:3]:
            for told in (had, has):
                told[words] = [w for w in told[words] if "/" in w or w in FLAGS]
        assert has == had
        assert ip(host, "-4 address show dev eth0") == ip(host, "-4 route show dev eth0") == ""
        assert ip(host, "-6 address show dev eth0 scope global") == ""
        link = json.loads(ip(host, "-j -d link show eth0"))[0]
        assert (link["master"], link["promiscuity"] > 0) == ("br0", True)
        assert json.loads(ip(host, "-j link show br0"))[0]["address"] == link["address"]
        for words, rule in (("rule", "iif br0"), ("rule", "oif br0"), ("-6 rule", "iif br0")):
            assert f"{rule} lookup 7" in ip(host, words)
    wait_same(host, before)


FLAGS = ("secondary", "deprecated", "dynamic", "noprefixroute", "nodad", "DEV:web", "metric", "777")


@pytest.mark.parametrize("rp_filter", [0, 1])
def test_connections_live_on(net: Lan, rp_filter: int) -> None:
    host = net.machine
    host.set_sysctl("net/ipv4/conf/all/rp_filter", rp_filter)
    batch(host, *(f"address add 192.0.2.{n}/24 dev eth0" for n in range(100, 110)))
    batch(host, *(f"address add 2001:db8:2::{n}/64 dev eth0 nodad" for n in range(100, 108)))
    many = (f"10.{n >> 8}.{n & 255}.0/24 via {ROUTER}" for n in range(600))
    many6 = (f"2001:db8:{n:x}::/48 via {ROUTER6}" for n in range(0x1000, 0x1000 + 400))
    batch(host, *(f"route add {route} dev eth0" for route in (*many, *many6)))
    before = snapshot(host)
    with (
        Transfer(host, net.other, OTHER, 5001) as out,
        Transfer(net.other, host, MACHINE6, 5002) as in_,
    ):
        for _ in range(2):
            with running(host, *YES):
                assert len(ip(host, "route show dev br0").splitlines()) == 602
                out.flows()
                in_.flows()
            out.flows()
            in_.flows()
    wait_same(host, before)


def test_a_dead_gateway_and_all_goes_back(net: Lan) -> None:
    net.machine.run("busybox", "ping", "-c1", ROUTER)  # it is known, and in use
    # It answers the NIC's own frames no more, as where a switch allows nothing but a host.
    batch(net.router, "link set eth0 down")
    before = snapshot(net.machine)
    done = netwrap(net.machine, *YES, "--", QEMU, *IDLE, *WORDS)
    assert done.returncode == 125
    assert f"gateway {ROUTER}, {ROUTER6} does not answer by br0" in done.stderr
    wait_same(net.machine, before)


def test_one_gateway_of_a_family_is_enough(net: Lan) -> None:
    batch(net.machine, f"route add default via {OTHER} dev eth0 metric 9")
    batch(net.router, f"address del {ROUTER}/24 dev eth0")
    before = snapshot(net.machine)
    with running(net.machine, *YES):
        assert master(net.machine, "eth0") == "br0"
    wait_same(net.machine, before)


def test_nat_goes_on_by_the_bridge_and_by_the_nic_again(net: Lan) -> None:
    host = net.machine
    before = snapshot(host)
    with running(host, words=("-nic", "nat")):
        with running(host, *YES):
            assert forwards(host, "br0")
        assert forwards(host, "eth0")
    wait_same(host, before)
    with running(host, *YES):
        nat = host.popen(COMMAND, "--", QEMU, *IDLE, "-nic", "nat")
        wait_for(lambda: is_qemu(nat), "QEMU")
        assert forwards(host, "br0")
    assert forwards(host, "eth0")
    nat.kill()
    netwrap(host, "wait", check=True)
    wait_same(host, before)


def test_a_network_is_kept_up_with_it(net: Lan) -> None:
    host = net.machine
    host.write(CONFIG_PATH, LAN_DEFAULT)
    before = snapshot(host)
    with running(host, words=("-nic", "nat")):
        netwrap(host, "network", "up", "lan", check=True)
        assert (master(host, "eth0"), forwards(host, "br0")) == ("br0", True)
        with running(host, words=("-nic", "tap")):
            pass
        assert master(host, "eth0") == "br0"
        netwrap(host, "network", "down", "lan", check=True)
        assert (master(host, "eth0"), forwards(host, "eth0")) == ("", True)
    wait_same(host, before)


@pytest.mark.parametrize("way", [f"tap,{SCRIPTS}", f"bridge,br=br0,helper={HELPER}"])
def test_a_bare_qemu_brings_it_up(net: Lan, way: str) -> None:
    """By our scripts or our helper, on a network of the configuration, which agrees to it."""
    host = net.machine
    host.write(CONFIG_PATH, LAN_DEFAULT)
    host.write("/etc/qemu/bridge.conf", "allow br0\n")
    before = snapshot(host)
    qemu = start(host, "-nic", way)
    assert (master(host, "eth0"), master(host, "br0")) == ("br0", "")
    assert f"{MACHINE}/24" in ip(host, "address show dev br0")
    end(qemu, signal.SIGTERM)
    wait_gone(host)
    wait_same(host, before)


def forwards(host: Host, device: str) -> bool:
    """Whether nat's guests get answers by a device, and no neighbour is routed for."""
    rules = host.run("nft", "list", "table", "inet", "qemu_netwrap").stdout
    guard = f'iifname "{device}" oifname != {{ "{device}", "qn-nat" }} drop'
    return host.sysctl(f"net/ipv4/conf/{device}/forwarding") == "1" and guard in rules


def refused(host: Host, *words: str) -> str:
    before = snapshot(host)
    done = netwrap(host, *(words or ("--", QEMU, *IDLE, *WORDS)))
    assert (done.returncode, done.stderr.count("hint: ")) == (125, 1), done.stderr
    wait_same(host, before)
    return done.stderr


def test_the_default_route_is_not_taken_unasked(net: Lan) -> None:
    for words in (("--", QEMU, *WORDS), ("plan", QEMU, *WORDS)):
        told = refused(net.machine, *words)
        assert "uplink eth0: this host is reached by it: 192.0.2.2/24" in told
        assert "--yes-uplink" in told
    batch(net.machine, f"route del default via {ROUTER} dev eth0")
    assert "this host is reached by it" in refused(net.machine)  # by IPv6 still


def test_what_cannot_be_bridged(net: Lan) -> None:
    host = net.machine
    host.run("sh", "-c", WIFI)
    assert "uplink eth0: it is Wi-Fi" in (told := refused(host))
    assert "use nat" in told
    batch(host, *PORT, "link add bond0 type bridge", "link set d0 master bond0")
    host.run(*"ip tuntap add t0 mode tap".split())
    host.run(*"ip tuntap add u0 mode tun".split())
    for name, told in {
        "nosuch": "there is no such interface",
        "lo": "it is the loopback interface",
        "bond0": "it is a bridge",
        "t0": "it is a tap",
        "u0": "it is a tap",
        "d0": "it is a port of bond0 already",
    }.items():
        words = ("-nic", f"bridge,br=br0,uplink={name}")
        assert f"uplink {name}: {told}" in refused(host, *YES, "--", QEMU, *words)
    words = ("-nic", "bridge,br=bond0,uplink=eth9")
    assert "bond0 is there already" in refused(host, *YES, "--", QEMU, *words)


PORT = ("link add d0 type veth peer name d1",)


def test_what_the_kernel_refuses(net: Lan) -> None:
    """A failure in the middle of a batch: what came before it goes back."""
    before = snapshot(net.machine)
    batch(net.machine, "link add link eth0 name mv0 type macvlan")
    told = refused(net.machine, *YES, "--", QEMU, *IDLE, *WORDS)
    assert "uplink eth0: something sits on it already" in told
    batch(net.machine, "link del mv0")
    wait_same(net.machine, before)


# A folder of the device that sysfs has for Wi-Fi alone; only this machine sees it.
WIFI = """
mount -t tmpfs fake /sys/class/net
mkdir -p /sys/class/net/eth0/phy80211
"""


def test_what_somebody_manages(net: Lan) -> None:
    host = net.machine
    index = json.loads(ip(host, "-j link show eth0"))[0]["ifindex"]
    state = f"/run/NetworkManager/devices/{index}"
    host.write(state, "[device]\nmanaged=1\n")
    with running(host, *YES):  # it does not live: nobody will undo anything
        pass
    stand_in(host, "NetworkManager")
    assert "NetworkManager manages it" in refused(host, *YES, "--", QEMU, *WORDS)
    host.write(state, "[device]\nmanaged=0\n")
    host.write(f"/run/systemd/netif/links/{index}", "ADMIN_STATE=configured\n")
    stand_in(host, "systemd-network")
    assert "systemd-networkd manages it" in refused(host, *YES, "--", QEMU, *WORDS)
    host.write(f"/run/systemd/netif/links/{index}", "ADMIN_STATE=unmanaged\n")
    host.write("/run/dhcpcd/eth0-4.pid", f"{host.pid}\n")
    assert "dhcpcd manages it" in refused(host, *YES, "--", QEMU, *WORDS)


def stand_in(host: Host, name: str) -> None:
    """Start a process of that name."""
    script = f"printf {name} >/proc/self/comm; echo ready; read _"
    shell = ("busybox", "sh", "-c", script)
    process = host.popen(*shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def test_runs_share_it_and_the_last_gives_it_back(net: Lan) -> None:
    host = net.machine
    before = snapshot(host)
    with running(host, *YES):
        # It is in: nothing of the host changes any more.
        with running(host), running(host, words=("-nic", "bridge,br=br0")):
            assert len(list_ports(host)) == 4
        assert master(host, "eth0") == "br0"
        told = netwrap(host, "--", QEMU, "-nic", "bridge,br=br0,uplink=eth9").stderr
        assert "br0 is up already without uplink eth9" in told
    wait_same(host, before)


def list_ports(host: Host) -> list[str]:
    return ip(host, "-brief link show master br0").splitlines()


def test_by_configuration_with_stp_and_at_once(net: Lan) -> None:
    host = net.machine
    host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    before = snapshot(host)
    with Transfer(host, net.other, OTHER, 5001) as out:
        with running(host, words=("-nic", "tap")) as qemu:
            bridge = json.loads(ip(host, "-j -d link show br-lan"))[0]["linkinfo"]["info_data"]
            shown = [bridge[key] for key in ("stp_state", "forward_delay", "hello_time")]
            assert shown == [1, 400, 300]
            out.flows()
            qemu.kill()
            assert qemu.stderr is not None
            told = qemu.stderr.read()
            assert "eth0, which the host is reached by, goes into br-lan" in told
        out.flows()
    wait_same(host, before)


CONFIG = """
default = "lan"
[networks.lan]
mode = "bridge"
bridge = "br-lan"
uplink = "eth0"
stp = true
forward_delay = 4
hello_time = 3
"""


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_second_nic_without_ceremony(net: Lan, state: str) -> None:
    host = net.machine
    batch(host, "address flush dev eth9", f"link set eth9 {state} mtu 1400")
    before = snapshot(host)
    with running(host, words=("-nic", "bridge,br=br0,uplink=eth9")):
        assert master(host, "eth9") == "br0"
        assert ip(host, "-4 address show dev br0") == ""
        # What the LAN advertises is the guests' business, not the host's.
        assert host.sysctl("net/ipv6/conf/br0/accept_ra") == "0"
        assert "UP" in ip(host, "-brief link show eth9")
        links = json.loads(ip(host, "-j link show"))
        assert {each["mtu"] for each in links if "br0" in (each.get("master"), each["ifname"])} == {
            1400
        }
    wait_same(host, before)


def test_what_has_changed_meanwhile_is_kept(net: Lan) -> None:
    host = net.machine
    net.router.popen(*DHCP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    net.router.wait_listening("udp", 67)
    host.write("/run/lease", LEASE, mode=0o755)
    old = snapshot(host)
    with running(host, *YES):
        host.run("busybox", "udhcpc", "-i", "br0", "-q", "-n", "-f", "-t", "30", "-s", "/run/lease")
        assert "192.0.2.77/24" in ip(host, "-4 address show dev br0")
    assert "inet 192.0.2.77/24" in (now := ip(host, "-4 address show dev eth0"))
    assert f"inet {MACHINE}/24" not in now
    assert f"default via {ROUTER} dev eth0" in ip(host, "route")
    batch(
        host,
        "address del 192.0.2.77/24 dev eth0",
        f"address add {MACHINE}/24 brd + dev eth0",
        f"route add default via {ROUTER} dev eth0",
    )
    wait_same(host, old)


DHCP = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
    *("--port=0", "--interface=eth0", "--bind-interfaces", "--leasefile-ro", "--no-ping"),
    *("--dhcp-range=192.0.2.77,192.0.2.77,1h", "--dhcp-option=option:router,192.0.2.1"),
)
LEASE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip -4 address flush dev "$interface"
ip address add "$ip/$mask" dev "$interface" valid_lft "$lease" preferred_lft "$lease"
ip route add default via "$router" dev "$interface"
"""


def test_what_a_router_advertises(bare: Lan) -> None:
    host = bare.machine
    bare.router.set_sysctl("net/ipv6/conf/all/forwarding", 1)
    bare.router.popen(*ADVERTISING, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "proto ra" in ip(host, "-6 route"), "the router's advertisement")
    wait_for(lambda: "mngtmpaddr" in ip(host, "address show dev eth0"), "an address")
    settled(host)
    before = snapshot(host)
    with running(host, *YES):
        assert "dynamic mngtmpaddr" in ip(host, "address show dev br0")
        assert "proto ra" in ip(host, "-6 route show default dev br0")
    wait_same(host, before)


ADVERTISING = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
    *("--port=0", "--interface=eth0", "--leasefile-ro", "--enable-ra"),
    "--dhcp-range=2001:db8:2::,ra-only,64,3600",
)


def as_older(line: str) -> str:
    """Return what an older version wrote of a NIC, in lines, from what this one writes."""
    kind, *fields = line.rstrip("\n").split("\t")
    assert kind == "interface eth0"
    pairs = (field.split("=") for field in fields)
    return "".join(f"{name.rstrip('0123456789')} {value}\n" for name, value in pairs)


@pytest.mark.parametrize("version", ["this", "an older"])
def test_the_bridge_is_deleted_by_somebody(bare: Lan, version: str) -> None:
    """The NIC gets back what was noted, also by an older version."""
    host = bare.machine
    enrich(host)
    batch(host, *LOST)
    before = snapshot(host)
    with running(host, *YES):
        (file,) = Path(f"/proc/{host.pid}/root/run/qemu-netwrap").glob("*/networks/br0/uplink")
        if version != "this":
            file.write_text(as_older(file.read_text("utf-8")), "utf-8")
        batch(host, "link del br0")
    batch(host, *(f"{command} dev eth0" for command in UNDONE))
    wait_same(host, before)


# What goes with a deleted bridge and is not noted: objects that other routes refer to.
LOST = ("route del 10.5.0.0/16", "route del 10.9.0.0/16", "route del 10.10.0.0/16", "nexthop flush")
UNDONE = (
    "neighbour replace 192.0.2.77 lladdr 02:00:00:00:00:77 nud permanent",
    "neighbour add proxy 192.0.2.78",
)


def test_the_nic_is_put_elsewhere_by_somebody(net: Lan) -> None:
    host = net.machine
    with running(host, *YES):
        batch(host, "link add br7 type bridge", "link set eth0 master br7")
    assert master(host, "eth0") == "br7"
    assert f"{MACHINE}/24" in ip(host, "address show dev eth0")


def test_somebody_elses_port_keeps_the_bridge_but_not_the_nic(net: Lan) -> None:
    host = net.machine
    before = snapshot(host)
    with running(host, *YES):
        batch(host, *PORT, "link set d0 master br0")
    assert (master(host, "d0"), master(host, "eth0")) == ("br0", "")
    batch(host, "link del br0", "link del d0")
    wait_same(host, before)


def test_plan_shows_it(net: Lan) -> None:
    before = snapshot(net.machine)
    told = netwrap(net.machine, *YES, "plan", QEMU, *WORDS, check=True).stdout
    for line in PLAN.strip("\n").splitlines():
        assert f"\n{line}\n" in told, told
    wait_same(net.machine, before)


PLAN = """
  ip addr add 192.0.2.2/24 dev br0
  ip link set eth0 master br0 up
  ip route replace ROUTE dev br0  # each of 2, in every table
  ip addr del 192.0.2.2/24 dev eth0
  ip addr add 192.0.2.2/24 dev eth0
  ip link set eth0 nomaster
  ip addr del 192.0.2.2/24 dev br0
"""


def test_a_nic_that_somebody_took_out_stays_out(net: Lan) -> None:
    """Who joins the network does not put it back: somebody wanted it so."""
    host = net.machine
    with running(host, *YES):
        batch(host, "link set eth0 nomaster")
        with running(host, *YES):
            assert master(host, "eth0") == ""
    assert master(host, "eth0") == ""


def test_a_bridge_that_somebody_deleted_is_made_anew_with_it(net: Lan) -> None:
    host = net.machine
    before = snapshot(host)
    with running(host, *YES):
        batch(host, "link del br0")
        with running(host, *YES):
            assert master(host, "eth0") == "br0"
            taps = json.loads(ip(host, "-j link show master br0"))
            assert len(taps) == 3
        assert f"{MACHINE}/24" in ip(host, "address show dev br0")
    wait_same(host, before)
