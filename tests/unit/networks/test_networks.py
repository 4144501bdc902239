"""Plans: what is not ours stays, names are of use to the kernel, subnets are free."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.errors import HostError, UsageError
from qemu_netwrap.model import names
from qemu_netwrap.model.host import NetworkFacts, Route
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.network import HOST_ONLY, NAT, Config, Network
from qemu_netwrap.model.run import TapDescriptors
from qemu_netwrap.networks import routed
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.qemu import command_line
from qemu_netwrap.qemu.network_options import interpret
from qemu_netwrap.runtime import plan

# No word has a NUL in it, and one with `help` or `?` may make QEMU print help.
HELPLESS = st.text(st.characters(exclude_characters="\0h?", exclude_categories=["Cs"]))
# Options that are not ours, each with its argument; none of them makes QEMU print help.
THEIRS = st.one_of(
    st.tuples(
        st.sampled_from(["-append", "-name", "-fw_cfg", "--m", "-uuid", "-kernel"]), HELPLESS
    ),
    st.tuples(st.sampled_from(["-S", "--daemonize", "-nodefaults"])),
    st.tuples(st.text().map(lambda text: f"i{text}")),
    st.tuples(st.just("-device"), st.sampled_from(["e1000", "e1000,bus=pci.0", '{"driver":"x"}'])),
    st.tuples(
        st.just("-nic"), st.sampled_from(["user", "none", "user,hostname=x,,y", "tap,fd=9,", ""])
    ),
    st.tuples(st.just("-net"), st.sampled_from(["none", "socket,fd=3", "user,"])),
)
OURS = [
    ("-nic", "nat"),
    ("--nic", "host-only,ifname=vm{}"),
    ("-nic", "tap,mac=52:54:00:00:00:01,queues=3"),
    ("-netdev", "nat,id=n{},vhost=on"),
    ("-netdev", '{{"type":"tap","id":"n{}","network":"nat"}}'),
    ("-net", "tap,br=lan0,,"),
]
ROUTES = st.builds(
    lambda pool, address, length, device: Route(
        Subnet((pool.network | address & ~pool.mask) >> 32 - length << 32 - length, length), device
    ),
    st.sampled_from(routed.POOLS),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 32),
    st.sampled_from(["eth0", "tun0"]),
)


def planned(argv: list[str], config: Config | None = None) -> plan.Plan | None:
    reading = interpret(command_line.parse(argv))
    if reading is None:
        return None
    return plan.make(reading, config or Config(), plan.Facts("4194304z", "machine"))


def rewritten(made: plan.Plan) -> tuple[str, ...]:
    nics = [p.nic for p in made.nics]
    macs = {nic.tap: tuple(m or nic.own_mac(n) for n, m in enumerate(nic.macs)) for nic in nics}
    fds = {nic.tap: tuple(map(str, range(nic.queues))) for nic in nics}
    vhosts = {nic.tap: fds[nic.tap] if nic.vhost else () for nic in nics}
    grants = {nic.tap: TapDescriptors(fds[nic.tap], vhosts[nic.tap], macs[nic.tap]) for nic in nics}
    return made.rewritten(grants).words({})


@given(st.lists(THEIRS | st.sampled_from(OURS), max_size=8))
def test_words_that_are_not_ours_stay(options: list[tuple[str, ...]]) -> None:
    argv = ["qemu"]
    ours = set()
    for number, option in enumerate(options):
        name, *value = option
        if option in OURS:
            value = [value[0].format(number)]
            ours.add(len(argv) + 1)
        argv += [name, *value]
    made = planned(argv)
    if made is None:
        assert not ours
        return
    new = rewritten(made)
    changed = {at for at, (old, now) in enumerate(zip(argv, new, strict=True)) if old != now}
    assert changed == ours
    assert all("fd" in new[at] for at in changed)


IFNAMES = st.sampled_from(["", "vm0", "vm1", "qn4194304z-1", "a" * 15, "a" * 16, "é" * 8])


@given(st.lists(IFNAMES, max_size=8))  # QEMU has no room for more
def test_no_interface_name_is_too_long_or_there_twice(ifnames: list[str]) -> None:
    argv = ["qemu"]
    for ifname in ifnames:
        argv += ["-nic", f"nat,ifname={ifname}"]
    cut = map(names.as_qemu_cuts, ifnames)
    taps = [ifname or f"qn4194304z-{index}" for index, ifname in enumerate(cut)]
    if len(set(taps)) < len(taps) or any(map(names.ifname_fault, taps)):
        with pytest.raises(UsageError, match="ifname"):
            planned(argv)
    else:
        made = planned(argv)
        assert [p.nic.tap for p in made.nics] == taps if made else not taps


@given(st.text(min_size=1), st.lists(ROUTES, max_size=12), st.lists(ROUTES, max_size=3))
def test_a_chosen_subnet_is_free_and_stays_the_same(
    name: str, routes: list[Route], others: list[Route]
) -> None:
    network = Network(name, NAT, "qn-x")
    # Half of the internet in one route is a VPN's default route, not somebody's network.
    taken = [r.subnet for r in routes if r.subnet.length >= 2] + [r.subnet for r in others]
    around = NetworkFacts(routes=tuple(routes), reserved=tuple(r.subnet for r in others))
    try:
        chosen = routed.subnet_of(network, around)
    except HostError:
        assert all(any(pool.overlaps(subnet) for subnet in taken) for pool in routed.POOLS)
        return
    reference = ipaddress.IPv4Network(str(chosen))
    assert reference.is_private
    assert reference.prefixlen == 24
    assert not any(reference.overlaps(ipaddress.IPv4Network(str(other))) for other in taken)
    assert routed.subnet_of(network, around) == chosen


def test_a_pool_is_used_to_its_last_subnet() -> None:
    free = Subnet.parse("192.168.200.0/24")
    pool = ipaddress.IPv4Network("192.168.0.0/16")
    routes = [
        Route(Subnet.parse("10.0.0.0/8"), "eth0"),
        Route(Subnet.parse("172.16.0.0/12"), "eth0"),
    ]
    routes += [
        Route(Subnet.parse(str(subnet)), "eth1")
        for subnet in pool.address_exclude(ipaddress.IPv4Network(str(free)))
    ]
    network = Network("lab", NAT, "qn-lab")
    assert routed.subnet_of(network, NetworkFacts(routes=tuple(routes))) == free
    full = NetworkFacts(routes=(*routes, Route(free, "eth2")))
    with pytest.raises(HostError, match="network lab: no free /24"):
        routed.subnet_of(network, full)


def test_networks_have_subnets_that_differ() -> None:
    chosen = {routed.subnet_of(Network(n, NAT, n), NetworkFacts()) for n in (NAT, HOST_ONLY, "lab")}
    assert len(chosen) == 3


def test_a_configured_subnet_is_used_unless_a_route_is_in_the_way() -> None:
    subnet = Subnet.parse("192.168.0.0/24")
    network = Network("lab", NAT, "qn-lab", subnet)
    default = Route(Subnet.parse("0.0.0.0/0"), "eth0")
    assert routed.subnet_of(network, NetworkFacts(routes=(default,))) == subnet
    route = Route(Subnet.parse("192.168.0.128/25"), "eth0", 100)
    message = r"overlaps the host's route 192\.168\.0\.128/25 dev eth0 table 100$"
    with pytest.raises(HostError, match=message):
        routed.subnet_of(network, NetworkFacts(routes=(default, route)))


def test_a_bridge_that_is_there_is_not_made() -> None:
    there = NetworkFacts(bridge_exists=True)
    assert network_resources(Network("lan", "bridge", "lan0"), there) == ()
    for mode in (NAT, HOST_ONLY):
        with pytest.raises(HostError, match="lan0 exists already"):
            network_resources(Network("lan", mode, "lan0"), there)


def test_nothing_is_asked_that_the_plan_does_not_need() -> None:
    def asked(argv: str, config: Config, chosen: str = "") -> plan.Questions:
        reading = interpret(command_line.parse(["qemu", *argv.split()]))
        assert reading is not None
        return plan.questions(reading, config, chosen)

    nothing, configured = Config(), Config(default="nat")
    assert asked("-nic nat", nothing) == plan.Questions()
    assert asked("-nic tap", nothing) == plan.Questions((), host_bridge=True)
    assert asked("-nic tap", configured) == plan.Questions()
    assert asked("-nic tap", nothing, "nat") == plan.Questions()
    assert asked("-nic tap,br=x,ifname=a -nic nat,ifname=b -nic tap,fd=3", nothing) == (
        plan.Questions(("a", "b"))
    )


def test_a_vm_keeps_its_macs_whatever_else_changes() -> None:
    def macs(argv: str) -> list[str]:
        made = planned(["qemu", *argv.split()])
        assert made is not None
        return [p.nic.own_mac(number) for p in made.nics for number in range(len(p.nic.macs))]

    assert macs("-name web -nic nat") == macs(
        "-m 4G -nic host-only,model=e1000 -name web,process=x"
    )
    assert macs("-name web -nic nat") != macs("-name mail -nic nat")
    assert macs("a.img -nic nat") == macs("-m 4G -nic nat a.img")
    assert macs("a.img -nic nat") != macs("b.img -nic nat")
    assert macs("-uuid 1 a.img -nic nat") == macs("-uuid 1 b.img -nic nat")
    assert len(set(macs("-name web -nic nat -nic nat -net nic -net nic -net nat"))) == 4
