"""A host that forwards for its guests is nobody else's router: not with nft's rules, nor without.

The neighbours send by the host whatever it might forward. A machine on the network's bridge stands
for a guest: the host sees no difference.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import reached
from lab.ipv6 import before_6_17
from lab.lan import MACHINE, MACHINE6, OTHER, OTHER6, ROUTER, ROUTER6, batch, lan, settled
from lab.netns import Host, link, wait_for
from lab.tool import netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fixtures import HostFactory, Watch
    from lab.lan import Lan

PRIVATE: Final = "10.77.0.2"  # behind the machine's eth1
PRIVATE6: Final = "2001:db8:77::2"
FLUSH: Final = ("nft", "flush", "ruleset")


@dataclass(frozen=True)
class Around:
    """The machine's LAN, what is behind its eth1, a guest of its, and the guest's addresses."""

    lan: Lan
    private: Host
    guest: Host
    address: str
    address6: str

    @property
    def machine(self) -> Host:
        return self.lan.machine

    def attacks(self) -> set[str]:
        """Return whom the neighbours reach by the machine though it is no router of theirs."""
        own = (self.address, self.address6)
        found = reached(self.lan.router, OTHER, OTHER6, PRIVATE, PRIVATE6, *own)
        return found | {f"{each} by eth1" for each in reached(self.private, ROUTER, ROUTER6, *own)}

    def outside(self) -> set[str]:
        """Return whom the guest reaches."""
        return reached(self.guest, ROUTER, ROUTER6, OTHER, OTHER6, PRIVATE, PRIVATE6)

    def own(self) -> set[str]:
        """Return whom the machine reaches itself, and who reaches it."""
        found = reached(self.machine, ROUTER, ROUTER6, PRIVATE, PRIVATE6)
        found |= reached(self.machine, self.address, self.address6)
        for host in (self.lan.router, self.private, self.guest):
            found |= {f"{each} of {host.name}" for each in reached(host, MACHINE, MACHINE6)}
        return found


@pytest.fixture
def base(_machines: contextlib.ExitStack, watch: Watch) -> tuple[Lan, Host]:
    """Return a machine between its LAN and a private network; all there use it as their router."""
    found, private = _machines.enter_context(lan()), _machines.enter_context(Host("private"))
    link(found.machine, "eth1", private, "eth0")
    batch(
        found.machine, "address add 10.77.0.1/24 dev eth1", "address add 2001:db8:77::1/64 dev eth1"
    )
    batch(
        private,
        f"address add {PRIVATE}/24 dev eth0",
        f"address add {PRIVATE6}/64 dev eth0",
        "route add default via 10.77.0.1",
        "route add default via 2001:db8:77::1",
    )
    batch(
        found.router,
        f"route add {OTHER}/32 via {MACHINE}",  # though it is a neighbour, as a client that
        f"route add {OTHER6}/128 via {MACHINE6}",  # is isolated from it would
        *(f"route add {each} via {MACHINE}" for each in ("10.77.0.0/24", "10.128.0.0/9")),
        *(f"route add {each} via {MACHINE6}" for each in ("2001:db8:77::/64", "fd00::/8")),
    )
    # The way back is straight.
    for each in ("10.77.0.0/24", "10.128.0.0/9"):
        batch(found.other, f"route add {each} via {MACHINE}")
    watch.baseline(found.machine)
    return found, private


@contextlib.contextmanager
def with_guest(base: tuple[Lan, Host], network: str = "nat") -> Iterator[Around]:
    """Have a network up, with a guest on it."""
    found, private = base
    machine = found.machine
    netwrap(machine, "network", "up", network, check=True)
    try:
        (shown,) = json.loads(netwrap(machine, "ps", "--json", check=True).stdout)["networks"]
        four, six = (shown[key].partition("/")[0] for key in ("address", "address6"))
        own, own6 = four.rpartition(".")[0] + ".77", f"{six}77"
        with Host("guest") as guest:
            link(machine, "port7", guest, "eth0")
            batch(machine, f"link set port7 master {shown['bridge']}")
            batch(
                guest,
                f"address add {own}/24 dev eth0",
                f"address add {own6}/64 dev eth0",
                f"route add default via {four}",
                f"route add default via {six}",
            )
            wait_for(lambda: len(reached(guest, four, six)) == 2, "the gateway")
            yield Around(found, private, guest, own, own6)
    finally:
        netwrap(machine, "network", "down", network, check=True)


EVERYBODY: Final = {ROUTER, ROUTER6, OTHER, OTHER6, PRIVATE, PRIVATE6}


def restored(around: Around) -> None:
    """Have a run join the network, which restores it."""
    netwrap(around.machine, "-q", "--", "true", "-nic", "nat", check=True)
    netwrap(around.machine, "wait", check=True)


@pytest.mark.parametrize(
    ("strict", "old"), [("0", False), ("1", False), ("2", True)], ids=["0", "1", "2, before 6.17"]
)
def test_nobodys_router(base: tuple[Lan, Host], watch: Watch, strict: str, *, old: bool) -> None:
    """Before and after a flush, whatever rp_filter is; IPv6 by each of its two ways."""
    machine = base[0].machine
    machine.set_sysctl("net.ipv4.conf.all.rp_filter", strict)
    if old:
        before_6_17(machine)
    watch.baseline(machine)
    with with_guest(base) as around:
        before = around.own()
        assert len(before) == 12
        assert around.attacks() == set()
        assert around.outside() == EVERYBODY
        machine.run(*FLUSH)
        assert around.attacks() == set()
        assert around.outside() == set()
        assert around.own() == before
        restored(around)
        assert around.outside() == EVERYBODY
        assert around.attacks() == set()


def test_a_router_goes_on_routing(base: tuple[Lan, Host], watch: Watch) -> None:
    """What it forwards itself is its own affair; its guests are not to be reached all the same."""
    machine = base[0].machine
    machine.set_sysctl("net.ipv4.ip_forward", 1)
    machine.set_sysctl("net.ipv6.conf.all.forwarding", 1)
    routed = {OTHER, OTHER6, PRIVATE, PRIVATE6, f"{ROUTER} by eth1", f"{ROUTER6} by eth1"}
    watch.baseline(machine)
    with with_guest(base) as around:
        before = around.own()
        assert around.attacks() == routed
        assert around.outside() == EVERYBODY
        machine.run(*FLUSH)
        assert around.attacks() == routed
        assert around.outside() == set()
        assert around.own() == before


def test_a_host_that_becomes_a_router_meanwhile(base: tuple[Lan, Host]) -> None:
    """As by Docker's start: nothing is in its way from the next join on, but for nft's rules."""
    machine = base[0].machine
    with with_guest(base) as around:
        machine.set_sysctl("net.ipv4.ip_forward", 1)
        restored(around)
        rules = machine.run("ip", "rule").stdout
        assert "iif eth0" not in rules
        assert "to 10." in rules
        machine.set_sysctl("net.ipv4.ip_forward", 0)
        restored(around)
        assert "iif eth0" in machine.run("ip", "rule").stdout
        assert around.attacks() == set()
        assert around.outside() == EVERYBODY


def test_host_only_stays_closed_on_a_router(base: tuple[Lan, Host], watch: Watch) -> None:
    machine = base[0].machine
    machine.set_sysctl("net.ipv4.ip_forward", 1)
    machine.set_sysctl("net.ipv6.conf.all.forwarding", 1)
    watch.baseline(machine)
    with with_guest(base, "host-only") as around:
        machine.run(*FLUSH)
        assert not around.attacks() & {around.address, around.address6}
        assert around.outside() == set()
        assert len(around.own()) == 12


ODD_NAMES: Final = ("3g-wan", 'a"b', "x*")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_uplink_that_comes_late_by_any_name(
    base: tuple[Lan, Host], watch: Watch, name: str
) -> None:
    machine = base[0].machine
    own = ("10.77.0.1/24", "2001:db8:77::1/64")
    batch(machine, *(f"address del {each} dev eth1" for each in own), "link set eth1 down")
    machine.run("ip", "link", "set", "eth1", "name", name)
    machine.run("ip", "link", "set", name, "up")
    settled(machine)
    watch.baseline(machine)
    with with_guest(base) as around:
        for each in own:
            machine.run("ip", "address", "add", each, "dev", name)
        for each in (PRIVATE, PRIVATE6):
            machine.run("ip", "route", "replace", "default", "via", each, "dev", name)
        settled(machine)
        restored(around)
        assert around.outside() == EVERYBODY
        assert around.attacks() == set()
        machine.run(*FLUSH)
        assert around.attacks() == set()
        for each in own:
            machine.run("ip", "address", "del", each, "dev", name)
        for each in (ROUTER, ROUTER6):
            machine.run("ip", "route", "replace", "default", "via", each, "dev", "eth0")


def test_an_uplink_that_is_a_bridge(
    base: tuple[Lan, Host], host_factory: HostFactory, watch: Watch
) -> None:
    """What goes between its ports passes, with br_netfilter too; what comes back to it does not."""
    machine, beside = base[0].machine, host_factory("beside")
    link(machine, "eth2", beside, "eth0")
    for key in ("iptables", "ip6tables"):
        machine.run("sysctl", "-eqw", f"net.bridge.bridge-nf-call-{key}=1")
    batch(
        machine,
        "link add br0 type bridge forward_delay 0",
        "address flush dev eth0",
        "link set eth0 master br0",
        "link set eth2 master br0",
        "link set br0 up",
        f"address add {MACHINE}/24 dev br0",
        f"address add {MACHINE6}/64 dev br0",
        f"route replace default via {ROUTER} dev br0",
        f"route replace default via {ROUTER6} dev br0",
    )
    batch(beside, "address add 192.0.2.9/24 dev eth0", "address add 2001:db8:2::9/64 dev eth0")
    wait_for(lambda: len(reached(beside, OTHER, OTHER6)) == 2, "the bridge")
    watch.baseline(machine, beside)
    with with_guest(base) as around:
        assert around.attacks() == set()
        assert around.outside() == EVERYBODY
        assert reached(beside, OTHER, OTHER6) == {OTHER, OTHER6}
        machine.run(*FLUSH)
        assert around.attacks() == set()
        assert reached(beside, OTHER, OTHER6) == {OTHER, OTHER6}


def test_rules_that_come_before(base: tuple[Lan, Host]) -> None:
    """A VPN's policy rules, in the order in which wg-quick adds them, come before all others."""
    machine = base[0].machine
    with with_guest(base) as around:
        for family, gateway in (("-4", PRIVATE), ("-6", PRIVATE6)):
            machine.sh(f"""ip {family} route add default via {gateway} table 51820
                ip {family} rule add not fwmark 51820 table 51820
                ip {family} rule add table main suppress_prefixlength 0""")
        wait_for(
            lambda: all(
                "lo goto" in machine.run("ip", family, "rule").stdout.splitlines()[1]
                for family in ("-4", "-6")
            ),
            "the guard to be the first again",
        )
        for family in ("-4", "-6"):
            theirs = machine.run("ip", family, "rule").stdout
            assert theirs.index("suppress_prefixlength") < theirs.index("lookup 51820")
        assert around.outside() == EVERYBODY
        machine.run(*FLUSH)
        assert around.attacks() == set()
        assert around.outside() == set()
        for family in ("-4", "-6"):
            machine.sh(f"""ip {family} rule del not fwmark 51820 table 51820
                ip {family} rule del table main suppress_prefixlength 0
                ip {family} route del default table 51820""")
