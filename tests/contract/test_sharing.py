"""What networks, and runs, share: the first makes it, the last undoes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from contract.acting import Actor, DiedError
from lab.chance import SOAK, steps
from lab.leaks import Snapshot, snapshot, wait_same
from lab.netns import wait_for
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.links import Bridge
from qemu_netwrap.resources.nftables import NetworkChains
from qemu_netwrap.resources.sysctls import Forwarding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.fixtures import Watch
    from lab.netns import Host

    Actors = Callable[[], Actor]

LAB: dict[str, Any] = {"name": "lab", "mode": "nat", "bridge": "qn-lab"}
OTHER: dict[str, Any] = {"name": "other", "mode": "nat", "bridge": "qn-other"}
LAN: dict[str, Any] = {"name": "lan", "mode": "bridge", "bridge": "qn-lan"}
# By hand, what a failed test leaves: it is to be told once, and at once.
CLEAR = """
for each in /run/qemu-netwrap/*/networks/*/dnsmasq.pid; do
    pid=$(cat "$each" 2>/dev/null) || continue
    # Not another process that has its number by now.
    grep -qs "${each%/*}" "/proc/$pid/cmdline" || continue
    kill "$pid"
    while [ -d "/proc/$pid" ]; do sleep 0.01; done
done
ip link del qn-lab 2>/dev/null || :
nft flush ruleset
rm -rf /run/qemu-netwrap
"""
FORWARDING = "net/ipv4/conf/up0/forwarding"
FOREIGN = """
nft add table inet foreign
nft add chain inet foreign qn-a_forward
nft add rule inet foreign qn-a_forward counter accept
nft add table ip qemu_netwrap
"""


def links(host: Host) -> set[str]:
    return {line.split(":")[1].strip() for line in host.sh("ip -o link").splitlines()}


def rules(host: Host) -> list[str]:
    """Return the lines of all nft rules, in whatever order."""
    return sorted(host.sh("nft list ruleset").splitlines())


def nothing_left(host: Host, before: Snapshot, *actors: Actor) -> None:
    for actor in actors:
        actor.kill()
    wait_same(host, before)


def forwarding(bridge: str) -> Forwarding:
    return Forwarding("up0", bridge)


@pytest.mark.parametrize("order", [("qn-a", "qn-b"), ("qn-b", "qn-a")])
def test_forwarding_ends_with_its_last_user(
    routed: Host, actors: Actors, order: tuple[str, str]
) -> None:
    before, actor = snapshot(routed), actors()
    for bridge in ("qn-a", "qn-b"):
        assert actor.acquire(f"net/{bridge}", forwarding(bridge))["errors"] == []
    assert routed.sysctl(FORWARDING) == "1"
    first, last = order
    actor.release(f"net/{first}")
    actor.release(f"net/{first}")
    assert routed.sysctl(FORWARDING) == "1"
    actor.release(f"net/{last}")
    assert routed.sysctl(FORWARDING) == "0"
    nothing_left(routed, before, actor)


def test_forwarding_that_was_on(routed: Host, actors: Actors, watch: Watch) -> None:
    routed.set_sysctl(FORWARDING, 1)
    watch.baseline(routed)
    before, actor = snapshot(routed), actors()
    for bridge in ("qn-a", "qn-b"):
        actor.acquire(f"net/{bridge}", forwarding(bridge))
    for bridge in ("qn-a", "qn-b"):
        assert actor.release(f"net/{bridge}")["errors"] == []
        assert routed.sysctl(FORWARDING) == "1"
    nothing_left(routed, before, actor)


def test_forwarding_that_somebody_switched_off(routed: Host, actors: Actors) -> None:
    """It stays off; a network that comes later switches it on again, and off in the end."""
    before, actor = snapshot(routed), actors()
    actor.acquire("net/qn-a", forwarding("qn-a"))
    routed.set_sysctl(FORWARDING, 0)
    actor.release("net/qn-a")
    wait_for(lambda: routed.sysctl(FORWARDING) == "0", "0")
    actor.acquire("net/qn-a", forwarding("qn-a"))
    routed.set_sysctl(FORWARDING, 0)
    actor.acquire("net/qn-b", forwarding("qn-b"))
    assert routed.sysctl(FORWARDING) == "1"
    actor.release("net/qn-a")
    assert routed.sysctl(FORWARDING) == "1"
    actor.release("net/qn-b")
    nothing_left(routed, before, actor)


def test_host_that_became_a_router_stays_one(routed: Host, actors: Actors, watch: Watch) -> None:
    """The global switch turns on every device's."""
    actor = actors()
    actor.acquire("net/qn-a", forwarding("qn-a"))
    routed.set_sysctl("net.ipv4.ip_forward", 1)
    assert actor.release("net/qn-a")["errors"] == []
    actor.kill()
    assert routed.sysctl(FORWARDING) == "1"
    watch.baseline(routed)


@pytest.mark.parametrize("order", [("qn-a", "qn-b"), ("qn-b", "qn-a")])
def test_table_goes_with_its_last_network(
    host: Host, watch: Watch, actors: Actors, order: tuple[str, str]
) -> None:
    """Tables of others, even of our table's name in another family, are left as they are."""
    host.sh(FOREIGN)
    watch.baseline(host)
    before, actor = snapshot(host), actors()
    for bridge in ("qn-a", "qn-b"):
        chain = f"chain {bridge}_forward {{\n type filter hook forward priority filter;\n}}\n"
        assert actor.acquire(f"net/{bridge}", NetworkChains(bridge, chain))["errors"] == []
    first, last = order
    for _ in range(2):
        assert actor.release(f"net/{first}")["errors"] == []
        table = host.sh("nft list table inet qemu_netwrap")
        assert f"{last}_forward" in table
        assert f"{first}_forward" not in table
    assert actor.release(f"net/{last}")["errors"] == []
    assert "inet qemu_netwrap" not in host.sh("nft list tables")
    nothing_left(host, before, actor)


def test_open_bridge_with_the_port_of_somebody_else(host: Host, actors: Actors) -> None:
    """It is left to him, and that is said."""
    before, actor = snapshot(host), actors()
    actor.acquire("net/qn-x", Bridge("qn-x", "52:54:00:00:00:77", open=True))
    host.sh("ip link add his0 type veth peer name his1; ip link set his0 master qn-x")
    done = actor.release("net/qn-x")
    assert done["errors"] == []
    (said,) = done["said"]
    assert "qn-x" in said
    assert "his0" in said
    assert {"qn-x", "his0@his1"} <= links(host)
    host.sh("ip link del his0; ip link del qn-x")
    nothing_left(host, before, actor)


def test_closed_bridge_with_the_port_of_somebody_else(host: Host, actors: Actors) -> None:
    """A nat or host-only network's bridge goes; the port itself is its owner's and stays."""
    before, actor = snapshot(host), actors()
    actor.acquire("net/qn-x", Bridge("qn-x", "52:54:00:00:00:77"))
    host.sh("ip link add his0 type veth peer name his1; ip link set his0 master qn-x")
    assert actor.release("net/qn-x")["errors"] == []
    assert links(host) == {"lo", "his0@his1", "his1@his0"}
    host.sh("ip link del his0")
    nothing_left(host, before, actor)


@pytest.mark.parametrize("network", [LAB, LAN, {**LAB, "mode": "host-only"}])
def test_first_makes_second_joins_last_takes_down(
    routed: Host, actors: Actors, network: dict[str, Any]
) -> None:
    before, actor = snapshot(routed), actors()
    made = actor.join("1", **network)
    assert made["errors"] == []
    up = snapshot(routed)
    again = actor.join("2", **network)
    assert again["info"] == made["info"]
    news = [line for line in up.diff(snapshot(routed)) if "/run/qemu-netwrap" not in line]
    assert news == []
    assert actor.end("1")["errors"] == []
    assert network["bridge"] in links(routed)
    assert actor.end("2")["errors"] == []
    nothing_left(routed, before, actor)


def test_member_that_was_killed_does_not_count(routed: Host, actors: Actors) -> None:
    before, one, other = snapshot(routed), actors(), actors()
    one.join("1", **LAB)
    other.join("2", **LAB)
    one.kill()  # without leaving
    assert other.end("2")["errors"] == []
    assert LAB["bridge"] not in links(routed)
    assert other.release("run/1")["errors"] == []
    nothing_left(routed, before, other)


def test_uplink_that_goes_away(routed: Host, watch: Watch, actors: Actors) -> None:
    """As a USB or VPN device does: the network is taken down all the same, and can be made anew."""
    actor = actors()
    actor.join("1", **LAB)
    routed.sh("ip link del up0")
    errors = actor.end("1")["errors"]
    later = actor.join("2", **LAB)["errors"]
    actor.kill()
    left = routed.sh("find /run/qemu-netwrap -name journal; ip -br link show type bridge").split()
    routed.sh(CLEAR)
    watch.baseline(routed)
    assert (errors, later) == ([], [])
    assert len(left) > 1


def test_two_networks_side_by_side(routed: Host, actors: Actors) -> None:
    """Each has its own subnet; what they share outlives the first, in either order."""
    before, actor = snapshot(routed), actors()
    one, other = actor.join("1", **LAB), actor.join("2", **OTHER)
    assert one["info"]["address"] != other["info"]["address"]
    assert actor.end("1")["errors"] == []
    assert routed.sysctl(FORWARDING) == "1"
    rules = routed.sh("nft list table inet qemu_netwrap")
    assert "qn-other_forward" in rules
    assert "qn-lab" not in rules
    assert actor.end("2")["errors"] == []
    nothing_left(routed, before, actor)


def test_foreign_bridge_is_used_as_it_is(routed: Host, actors: Actors) -> None:
    routed.sh("ip link add qn-lan address 52:54:00:00:00:03 type bridge stp_state 1")
    before, actor = snapshot(routed), actors()
    assert actor.join("1", **LAN)["errors"] == []
    assert actor.join("2", **LAN)["errors"] == []
    for run in ("1", "2"):
        assert actor.end(run)["errors"] == []
    nothing_left(routed, before, actor)
    routed.sh("ip link del qn-lan")


def test_half_a_network_is_made_anew(routed: Host, actors: Actors) -> None:
    """At whatever step its maker died; and if nobody comes, the dead run's release undoes it."""
    before, crashes = snapshot(routed), 0
    for step in steps(200, "half a network"):
        maker = actors()
        try:
            maker.join("1", **LAB, die=step)
        except DiedError:
            crashes += 1
        else:
            maker.end("1")
            nothing_left(routed, before, maker)
            break
        maker.kill()
        heir = actors()
        if step % 2:
            assert heir.join("2", **LAB)["errors"] == []
            routed.sh("ip address show qn-lab | grep -q inet; nft list table inet qemu_netwrap")
            assert routed.sysctl(FORWARDING) == "1"
            assert heir.end("2")["errors"] == []
        assert heir.release("run/1")["errors"] == []
        nothing_left(routed, before, heir)
    assert crashes > (15 if SOAK else 2)


def test_dnsmasq_that_was_killed_is_started_again(routed: Host, actors: Actors) -> None:
    before, actor = snapshot(routed), actors()
    actor.join("1", **LAB)
    pid_file = "/run/qemu-netwrap/*/networks/qn-lab/dnsmasq.pid"
    old = routed.sh(f"cat {pid_file}").strip()
    routed.sh(f"kill -9 {old}; while [ -d /proc/{int(old)} ]; do sleep 0.01; done")
    assert actor.join("2", **LAB)["errors"] == []
    new = routed.sh(f"cat {pid_file}").strip()
    assert old != new
    assert "--conf-file=" in routed.processes()[int(new)]
    assert actor.end("1")["errors"] == []
    assert int(new) in routed.processes()
    assert actor.end("2")["errors"] == []
    nothing_left(routed, before, actor)


def test_crash_while_dnsmasq_is_started_again(routed: Host, actors: Actors) -> None:
    """Whenever he who starts it again dies, the next one to join does it."""
    before, problems = snapshot(routed), list[str]()
    pid_file = "/run/qemu-netwrap/*/networks/qn-lab/dnsmasq.pid"
    for step in steps(50, "dnsmasq again"):
        owner, joiner, last = actors(), actors(), actors()
        owner.join("1", **LAB)
        old = routed.sh(f"cat {pid_file}").strip()
        routed.sh(f"kill -9 {old}; while [ -d /proc/{int(old)} ]; do sleep 0.01; done")
        try:
            joiner.join("2", **LAB, die=step)
        except DiedError:
            died = True
        else:
            died = False
        joiner.kill()
        problems += [f"step {step}: {error}" for error in last.join("3", **LAB)["errors"]]
        new = int(routed.sh(f"cat {pid_file}").strip())
        if "--conf-file=" not in routed.processes().get(new, ""):
            problems.append(f"step {step}: no dnsmasq")
        assert last.release("run/2")["errors"] == []
        assert owner.end("1")["errors"] == []
        assert last.end("3")["errors"] == []
        nothing_left(routed, before, owner, last)
        if not died:
            break
    assert problems == []


# What somebody takes away, and what shows that it is there.
TAKEN: Final = {
    "bridge": ("ip link del qn-lab", "ip address show qn-lab | grep -q inet"),
    "all rules": ("nft flush ruleset", "nft list table inet qemu_netwrap"),
    "a chain": (
        "for verb in flush delete; do nft $verb chain inet qemu_netwrap qn-lab_postrouting; done",
        "nft list chain inet qemu_netwrap qn-lab_postrouting",
    ),
    "forwarding": (
        "sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.ipv4.ip_forward=0",
        "! sysctl -n net.ipv4.conf.qn-lab.forwarding net.ipv4.conf.up0.forwarding | grep -q 0",
    ),
    "accepts in iptables": (
        "iptables-nft -D FORWARD 2",
        "[ $(iptables-nft -S FORWARD | grep -c qemu-netwrap) = 2 ]",
    ),
    "accepts in nft": (
        "nft flush chain inet theirs passing",
        "[ $(nft list chain inet theirs passing | grep -c qemu-netwrap) = 3 ]",
    ),
}
# What drops beside us, for the accepts that are taken away.
BESIDE: Final = {
    "accepts in iptables": "iptables-nft -P FORWARD DROP",
    "accepts in nft": (
        "nft add table inet theirs; nft add chain inet theirs passing"
        " '{ type filter hook forward priority 0; policy drop; }'"
    ),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_somebody_takes_away_the_next_to_join_restores(
    routed: Host, actors: Actors, watch: Watch, what: str
) -> None:
    """And if he dies over it, here at every third step, the next one after him."""
    routed.sh(BESIDE.get(what, ":"))
    watch.baseline(routed)
    before, problems = snapshot(routed), list[str]()
    take, look = TAKEN[what]
    for step in range(1, 200, 3):
        owner, joiner, last = actors(), actors(), actors()
        made = owner.join("1", **LAB)
        whole = rules(routed)
        routed.sh(take)
        try:
            joiner.join("2", **LAB, die=step)
        except DiedError:
            died = True
        else:
            died = False
        joiner.kill()
        again = last.join("3", **LAB)
        problems += [f"step {step}: {error}" for error in again["errors"]]
        if again["info"] != made["info"] or rules(routed) != whole:
            problems.append(f"step {step}: another network")
        routed.sh(look)
        assert last.release("run/2")["errors"] == []
        assert owner.end("1")["errors"] == []
        routed.sh(look)
        assert last.end("3")["errors"] == []
        nothing_left(routed, before, owner, last)
        if not died:
            break
    assert problems == []


def test_bridge_that_was_replaced(routed: Host, actors: Actors) -> None:
    """A nat network does not take over somebody else's bridge, and what was ours goes."""
    actor = actors()
    actor.join("1", **LAB)
    routed.sh("ip link del qn-lab; ip link add qn-lab type bridge")
    done = actor.join("2", **LAB)
    assert "not qemu-netwrap" in done["errors"][0]
    for run in ("2", "1"):
        assert actor.end(run)["errors"] == []
    actor.kill()
    assert "qn-lab" in links(routed)
    routed.sh("ip link del qn-lab")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LAB, {**LAB, "mode": "host-only"}),
        (LAN, {**LAN, "mode": "nat"}),
        (LAB, {**LAB, "subnet": "10.77.0.0/24"}),
        ({**LAB, "subnet": "10.77.0.0/24"}, {**LAB, "subnet": "10.77.0.0/25"}),
    ],
)
def test_one_bridge_in_two_ways(
    routed: Host, actors: Actors, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The second is refused, and the first goes on as it was."""
    before, actor = snapshot(routed), actors()
    actor.join("1", **first)
    up = snapshot(routed)
    done = actor.join("2", **second)
    assert first["bridge"] in done["errors"][0]
    assert done["hint"]
    assert actor.end("2")["errors"] == []
    news = up.diff(snapshot(routed))
    # Both stay until the last run goes: a folder, and the lock that each who leaves takes.
    passing = ("/shared (type='folder')", "/locks/-macs (type='file')")
    assert [line for line in news if not any(each in line for each in passing)] == []
    assert actor.end("1")["errors"] == []
    nothing_left(routed, before, actor)


def test_tap_on_the_bridge_of_a_nat(routed: Host, actors: Actors) -> None:
    """`br=qn-lab` joins the nat network that is there."""
    before, actor = snapshot(routed), actors()
    made = actor.join("1", **LAB)
    assert actor.join("2", **{**LAB, "mode": "bridge"})["info"] == made["info"]
    assert actor.end("1")["errors"] == []
    assert actor.end("2")["errors"] == []
    nothing_left(routed, before, actor)


def test_crash_at_every_step_of_leaving(routed: Host, actors: Actors) -> None:
    before, crashes = snapshot(routed), 0
    for step in steps(200, "leaving"):
        actor, other = actors(), actors()
        actor.join("1", **LAB)
        try:
            actor.release("run/1", die=step)
        except DiedError:
            crashes += 1
            actor.kill()
            assert other.release("run/1")["errors"] == []
            assert other.release("net/qn-lab")["errors"] == []
        else:
            break
        finally:
            actor.kill()
        nothing_left(routed, before, other)
    nothing_left(routed, before, other)
    assert crashes > (10 if SOAK else 1)


@pytest.mark.parametrize("pause", [0, 0.002, 0.004, 0.006, 0.01, 0.02])
def test_maker_dies_while_dnsmasq_becomes_a_daemon(
    routed: Host, actors: Actors, pause: float
) -> None:
    """There are up to three processes of it for a moment; none of them may be overlooked."""
    routed.sh("ip link add qn-x address 52:54:00:00:00:01 type bridge; ip link set qn-x up")
    routed.sh("ip address add 10.9.0.1/24 dev qn-x")
    before = snapshot(routed)
    config = "interface=qn-x\nexcept-interface=lo\nbind-dynamic\ndhcp-range=10.9.0.2,10.9.0.9\n"
    for _ in range(4):
        actor, other = actors(), actors()
        with pytest.raises(DiedError):
            actor.acquire("net/qn-x", DnsmasqServer("qn-x", config), die="__init__")
        routed.sh(f"sleep {pause}")
        assert other.release("net/qn-x")["errors"] == []
        nothing_left(routed, before, actor, other)
    routed.sh("ip link del qn-x")
