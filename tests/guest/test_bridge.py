"""bridge: made when it is not there, left as it is when it is; the default if the LAN is on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from guest.shell import Shell, link, status
from lab.netns import GATEWAY, UPLINK_ADDRESS, WEB_BODY, wait_for

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

FORMS = (
    ("-nic", "bridge,br=br0,model=virtio"),
    ("-netdev", "bridge,id=n0,br=br0", "-device", "virtio-net-pci,netdev=n0"),
    ("-net", "nic,model=virtio", "-net", "bridge,br=br0"),
    ("-nic", "tap,br=br0,model=virtio"),
)
USERS_BRIDGE = """
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip link add br0 address 02:00:00:00:00:b0 type bridge forward_delay 0 hello_time 300 priority 4096
ip link add port0 type veth peer name far0
ip link set far0 up
ip link set port0 master br0 up
ip address add 192.0.2.1/24 dev br0
ip link set br0 up
ip link set br0 type bridge forward_delay 200
"""
LAN_BRIDGE = f"""
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip link add br0 type bridge forward_delay 0
ip -4 address flush dev eth0
ip link set eth0 master br0
ip address add {UPLINK_ADDRESS}/24 dev br0
ip link set br0 up
ip route add default via {GATEWAY}
"""


def prepare(host: Host, watch: Watch, commands: str) -> None:
    """Make br0 as the user has it, and take that for what it has to be again."""
    host.run("sh", "-euc", commands)
    wait_for(lambda: link(host, "br0")["operstate"] == "UP", "br0")
    watch.baseline(host)


def settings(host: Host) -> dict[str, Any]:
    """What of br0 is for its owner to set."""
    found = link(host, "br0")
    bridge = found["linkinfo"]["info_data"]
    own = ("stp_state", "forward_delay", "hello_time", "max_age", "ageing_time", "priority")
    return {
        "index": found["ifindex"],
        "mac": found["address"],
        "mtu": found["mtu"],
        "addresses": host.run("ip", "-br", "-4", "address", "show", "br0").stdout.split()[2:],
        **{name: bridge[name] for name in own},
    }


def test_bridge_is_made_in_all_forms(host: Host) -> None:
    with (
        Shell(host, *FORMS[0], address="192.0.2.11/24") as first,
        Shell(host, *FORMS[1], address="192.0.2.12/24") as second,
        Shell(host, *FORMS[2], address="192.0.2.13/24") as third,
        Shell(host, *FORMS[3], address="192.0.2.14/24") as fourth,
    ):
        guests = (first, second, third, fourth)
        for guest in guests:
            guest.wait_report("ready")
        addresses = {f"192.0.2.1{number}" for number in (1, 2, 3, 4)}
        with ThreadPoolExecutor() as threads:
            answers = threads.map(lambda guest: guest.reached(*addresses), guests)
        assert list(answers) == [addresses] * 4
        assert len({guest.mac for guest in guests}) == 4
        bridge = link(host, "br0")
        assert bridge["linkinfo"]["info_kind"] == "bridge"
        assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
        assert bridge["linkinfo"]["info_data"]["forward_delay"] == 0


def test_bridge_of_the_user_stays_as_it_is(host: Host, watch: Watch) -> None:
    prepare(host, watch, USERS_BRIDGE)
    before = settings(host)
    assert (before["forward_delay"], before["hello_time"]) == (200, 300)
    with Shell(host, *FORMS[0], address="192.0.2.11/24") as guest:
        # A new port of this bridge says nothing for 2 s.
        guest.ask("try 30 ping -c1 -W1 192.0.2.1")
        assert settings(host) == before
        assert link(host, f"qn{guest.pid}-0")["master"] == "br0"


def test_plain_tap_is_on_the_lan(uplinked: Uplinked, watch: Watch) -> None:
    """It goes to the bridge that carries the host's default route."""
    host = uplinked.host
    prepare(host, watch, LAN_BRIDGE)
    before = settings(host)
    with Shell(host, "-nic", "tap,model=virtio", address="203.0.113.50/24") as guest:
        guest.ask(
            f"ip route add default via {GATEWAY}; echo nameserver {GATEWAY} >/etc/resolv.conf"
        )
        assert guest.get("http://www.example.test/") == WEB_BODY
        # It is a machine of the LAN, not one behind the host.
        assert guest.mac in uplinked.net.run("ip", "neighbour", "show", "203.0.113.50").stdout
        assert settings(host) == before
        assert [network["name"] for network in status(host)["networks"]] == ["br0"]
        assert host.run("nft", "list", "ruleset").stdout == ""


def test_nat_beside_the_lan_bridge(uplinked: Uplinked, watch: Watch) -> None:
    """A NAT network reaches the world through the bridge, and leaves it to those on it."""
    host = uplinked.host
    prepare(host, watch, LAN_BRIDGE)
    # Frames between the bridge's ports then pass the rules of the NAT network.
    host.run("sysctl", "-eqw", "net.bridge.bridge-nf-call-iptables=1")
    watch.baseline(host)
    with (
        Shell(host, "-nic", "tap,model=virtio", address="203.0.113.50/24") as lan,
        Shell(host, "-nic", "nat,model=virtio", name="nat") as nat,
    ):
        assert nat.get("http://www.example.test/") == WEB_BODY
        assert lan.reached(GATEWAY, UPLINK_ADDRESS) == {GATEWAY, UPLINK_ADDRESS}
