"""A nat network goes on when the host's way out becomes another one: a VPN comes up, and goes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import reached
from lab.lan import batch, settled
from lab.netns import GATEWAY, WEB_ADDRESS, Host, link, wait_for
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fixtures import HostFactory, Watch
    from lab.netns import Uplinked

BEHIND: Final = "198.51.100.99"  # behind the VPN alone
BEHIND6: Final = "2001:db8:99::99"
VPN: Final = ("10.66.0.2/24", "2001:db8:66::2/64")


@pytest.fixture
def vpn(uplinked6: Uplinked, host_factory: HostFactory, watch: Watch) -> Uplinked:
    """Return a machine with a second device, which leads nowhere yet; its other end is a VPN."""
    host, server = uplinked6.host, host_factory("vpn")
    link(host, "tun0", server, "eth0")
    batch(
        server,
        "address add 10.66.0.1/24 dev eth0",
        "address add 2001:db8:66::1/64 dev eth0",
        f"address add {BEHIND}/32 dev lo",
        f"address add {BEHIND6}/128 dev lo",
    )
    watch.baseline(host, server)
    return uplinked6


@contextlib.contextmanager
def guest_of(host: Host) -> Iterator[Host]:
    """Have nat up; yield a machine on its bridge that stands for a guest."""
    netwrap(host, "network", "up", "nat", check=True)
    try:
        (shown,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
        four, six = (shown[key].partition("/")[0] for key in ("address", "address6"))
        with Host("guest") as guest:
            # Or the network's advertisement gives it the default route first.
            guest.set_sysctl("net/ipv6/conf/default/accept_ra", 0)
            link(host, "port7", guest, "eth0")
            batch(host, "link set port7 master qn-nat")
            batch(
                guest,
                f"address add {four.rpartition('.')[0]}.77/24 dev eth0",
                f"address add {six}77/64 dev eth0",
                f"route add default via {four}",
                f"route add default via {six}",
            )
            wait_for(lambda: len(reached(guest, four, six)) == 2, "the gateway")
            yield guest
    finally:
        netwrap(host, "network", "down", "nat", check=True)


def up(host: Host) -> None:
    """Give the VPN's device its addresses."""
    batch(host, *(f"address add {address} dev tun0" for address in VPN))


def down(host: Host) -> None:
    """Have the VPN go: of the routes by IPv4 the kernel does not tell then."""
    batch(host, "link set tun0 down", f"address del {VPN[0]} dev tun0")
    for family in ("-4", "-6"):
        for rule in ("not fwmark 51820 table 51820", "table main suppress_prefixlength 0"):
            host.sh(f"ip {family} rule del {rule} 2>/dev/null || :")
    if not host.run("ip", "route", "show", "default").stdout:
        host.run("ip", "route", "add", "default", "via", GATEWAY, "dev", "eth0")


def leads_nowhere(host: Host) -> bool:
    """Whether nothing is left of what was for the VPN."""
    rules = host.run("ip", "rule").stdout + host.run("ip", "-6", "rule").stdout
    return "tun0" not in rules + host.run("nft", "list", "ruleset").stdout and not any(
        host.sysctl(f"net/{key}") == "1"
        for key in ("ipv4/conf/tun0/forwarding", "ipv6/conf/tun0/force_forwarding")
    )


WAYS: Final = {
    "a better default route": (
        "ip route replace default via 10.66.0.1 dev tun0",
        "ip -6 route add default via 2001:db8:66::1 dev tun0 metric 1",
    ),
    "halves, as OpenVPN's": (
        "for each in 0.0.0.0/1 128.0.0.0/1; do ip route add $each via 10.66.0.1; done",
        "for each in ::/3 2000::/4 3000::/4; do ip route add $each via 2001:db8:66::1; done",
    ),
    "a table, as wg-quick's": (
        """ip route add default via 10.66.0.1 table 51820
        ip rule add not fwmark 51820 table 51820
        ip rule add table main suppress_prefixlength 0""",
        """ip -6 route add default via 2001:db8:66::1 dev tun0 table 51820
        ip -6 rule add not fwmark 51820 table 51820
        ip -6 rule add table main suppress_prefixlength 0""",
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_vpn_comes_up_and_goes(vpn: Uplinked, watch: Watch, way: tuple[str, str]) -> None:
    host = vpn.host
    before = host.run("ip", "route", "show", "default").stdout
    with guest_of(host) as guest:
        assert reached(guest, WEB_ADDRESS) == {WEB_ADDRESS}
        assert host.sysctl("net/ipv4/conf/tun0/forwarding") == "0"
        up(host)
        for script in way:
            host.sh(script)
        both = {BEHIND, BEHIND6}
        wait_for(lambda: reached(guest, *both) == both, "the guest's way out by the VPN")
        down(host)
        assert host.run("ip", "route", "show", "default").stdout == before
        wait_for(lambda: leads_nowhere(host), "what was for the VPN to be taken back")
        assert reached(guest, WEB_ADDRESS) == {WEB_ADDRESS}
        host.run("ip", "link", "set", "tun0", "up")
        settled(host)


def test_what_is_wrong_with_the_way_out_shows(vpn: Uplinked) -> None:
    """Where nothing has the network follow any more: who joins puts that right."""
    host = vpn.host
    with guest_of(host) as guest:
        assert faults(host) == []
        host.sh('kill -9 "$(cut -d" " -f1 /run/qemu-netwrap/*/networks/qn-nat/lookout)"')
        up(host)
        for script in WAYS["a better default route"]:
            host.sh(script)
        found = faults(host)
        assert len(found) == 3
        assert "the host's default route leads by tun0, which does not forward ipv4" in found[0]
        assert "the host's default route leads by tun0, which does not forward ipv6" in found[1]
        assert "nothing has it follow" in found[2]
        told = netwrap(host, "doctor", "--json").stdout
        remedy = "qemu-netwrap -- true -nic tap,network=nat"
        assert told.count(remedy) == 3
        host.sh(f"{Path(COMMAND).parent}/{remedy}")
        netwrap(host, "wait", check=True)
        assert faults(host) == []
        assert reached(guest, BEHIND, BEHIND6) == {BEHIND, BEHIND6}
        down(host)
        wait_for(lambda: leads_nowhere(host), "what was for the VPN to be taken back")
        host.run("ip", "link", "set", "tun0", "up")
        settled(host)


def faults(host: Host) -> list[str]:
    (shown,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    found: list[str] = shown["faults"]
    assert json.loads(netwrap(host, "network", "show", "nat", "--json").stdout)["faults"] == found
    return found


def name_of(pid: str) -> str:
    """Return what the kernel calls a process; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
    return ""


def test_a_lookout_sleeps_through_what_does_not_concern_it(vpn: Uplinked) -> None:
    """Taps that come and go, addresses, narrow routes; and it is small."""
    host = vpn.host
    with guest_of(host) as guest:
        pid = host.sh("cut -d' ' -f1 /run/qemu-netwrap/*/networks/qn-nat/lookout").strip()
        children = Path(f"/proc/{pid}/task/{pid}/children")
        # It may still see to what it was woken by, and have other programs as its children.
        wait_for(lambda: name_of(children.read_text().strip()) == "head", "it to sleep")
        before = children.read_text()
        for words in (
            "link add other0 up type bridge",
            "address add 10.99.0.1/24 dev other0",
            "route add 10.98.0.0/16 via 10.99.0.2",
            "-6 route add 2001:db8:98::/48 dev other0",
            "link del other0",
        ):
            host.run("ip", *words.split())
        netwrap(host, "-q", "--", "true", "-nic", "nat", check=True)
        netwrap(host, "wait", check=True)
        assert children.read_text() == before
        for each in (pid, before.strip()):
            found = Path(f"/proc/{each}/smaps_rollup").read_text().split("\nPss:")[1].split()[0]
            assert int(found) < 700, "KB"
        assert reached(guest, WEB_ADDRESS) == {WEB_ADDRESS}
