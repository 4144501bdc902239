"""Every kind of resource on the real kernel: state before = state after, whatever comes between.

Acquired, released, released again; taken away by somebody else meanwhile, or replaced by something
of the same name; and cut short at every step by a crash, after which a new process releases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from contract.acting import Actor, DiedError
from lab import neighbours
from lab.chance import sampled
from lab.leaks import snapshot, wait_same
from lab.neighbours import FIREWALL_CMD
from qemu_netwrap.resources.base import ALL, Resource
from qemu_netwrap.resources.dhcp_hosts import AnyClient, DhcpHost
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.firewall_accepts import FirewalldZone, IptablesAccepts, NftAccepts
from qemu_netwrap.resources.forward_guards import RouterGuard
from qemu_netwrap.resources.links import Address, AttachedTap, Bridge, Tap
from qemu_netwrap.resources.lookout import Lookout
from qemu_netwrap.resources.nftables import NetworkChains, PortForwardChains
from qemu_netwrap.resources.port_filters import IpFilter, MacFilter
from qemu_netwrap.resources.sysctls import Forwarding, Switch, Sysctl
from qemu_netwrap.resources.unmanaged import UnmanagedDevices
from qemu_netwrap.resources.uplink import BridgeUplink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.fixtures import Watch
    from lab.leaks import Snapshot
    from lab.netns import Host

    Actors = Callable[[], Actor]

MAC = "52:54:00:00:00:77"
BRIDGE = Bridge("qn-x", MAC)
CHAINS = """chain qn-x_forward {
  type filter hook forward priority filter; policy accept;
  iifname "qn-x" drop comment "qemu-netwrap: x"
}
chain qn-x_postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  ip saddr 10.9.0.0/24 masquerade comment "qemu-netwrap: x"
}
"""
FORWARDS = """chain qn77-0_output {
  type nat hook output priority -100; policy accept;
  tcp dport 2222 dnat ip to 10.9.0.5:22 comment "qemu-netwrap: qn77-0"
}
chain qn77-0_leaving {
  type filter hook output priority raw; policy accept;
  tcp dport 2222 ip saddr set 10.9.0.1 comment "qemu-netwrap: qn77-0"
}
"""
DNSMASQ = """interface=qn-x
except-interface=lo
bind-dynamic
no-hosts
no-resolv
dhcp-range=10.9.0.2,10.9.0.254,1h
"""
# Its MAC is its own and it has no IPv6, so that it does not change by itself.
MAKE_BRIDGE = """
ip link add qn-x address 52:54:00:00:00:01 type bridge
echo 1 >/proc/sys/net/ipv6/conf/qn-x/disable_ipv6
ip link set qn-x up
"""
# With a port that stays, it keeps its carrier whatever other ports come and go.
MAKE_BRIDGE_WITH_PORT = f"""
{MAKE_BRIDGE}
ip link add port0 type veth peer name port1
for each in port0 port1; do echo 1 >/proc/sys/net/ipv6/conf/$each/disable_ipv6; done
ip link set port1 up
ip link set port0 master qn-x up
until ip link show qn-x | grep -q 'state UP'; do sleep 0.01; done
"""
# The tap's number is the next one: interfaces are counted in each network namespace.
MAKE_USERS_TAP = f"""
{MAKE_BRIDGE_WITH_PORT}
ip tuntap add qn77-0 mode tap
echo 1 >/proc/sys/net/ipv6/conf/qn77-0/disable_ipv6
ip link set qn77-0 address 52:54:00:00:00:03 up
ip link set qn77-0 down
[ "$(cat /sys/class/net/qn77-0/ifindex)" = 5 ]
"""
MAKE_UPLINK = """
ip link add up0 type veth peer name up1
for each in up0 up1; do
    echo 1 >/proc/sys/net/ipv6/conf/$each/disable_ipv6
    ip link set $each up
done
until ip link show up0 | grep -q 'state UP'; do sleep 0.01; done
ip address add 10.8.0.2/24 dev up0
ip route add 10.7.0.0/24 dev up0
"""
# Without an address of its own, which would come later. With the first one a route comes to stay.
WITH_IPV6 = """
echo 1 >/proc/sys/net/ipv6/conf/qn-x/addr_gen_mode
echo 0 >/proc/sys/net/ipv6/conf/qn-x/disable_ipv6
ip address add fd00:8::1/64 dev qn-x nodad
ip address del fd00:8::1/64 dev qn-x
"""
FORWARD_ALONE = "echo 1 >/proc/sys/net/ipv6/conf/qn-x/forwarding"
REMAKE_BRIDGE = "ip link del qn-x; ip link add qn-x type bridge"
OTHER_DNSMASQ = (
    "dnsmasq --conf-file=/dev/null --user=root --pid-file=/run/other.pid --port=0 --bind-interfaces"
    " --interface=qn-x --dhcp-range=10.9.0.2,10.9.0.9 --leasefile-ro"
)
WAIT_FOR_NO_DNSMASQ = 'while [ -d "/proc/$pid" ]; do sleep 0.01; done'
KILL_DNSMASQ = f"""
pid=$(cat /run/qemu-netwrap/*/networks/qn-x/dnsmasq.pid)
kill "$pid"
{WAIT_FOR_NO_DNSMASQ}
"""
CLEAR = f"""
rm -rf /run/qemu-netwrap
for each in qn-x qn77-0 up0 port0; do ip link del $each 2>/dev/null || :; done
nft flush ruleset
rm -rf /run/systemd /run/NetworkManager
if [ -e /run/xtables.lock ]; then
    for each in iptables-legacy ip6tables-legacy; do
        "$each" -P INPUT ACCEPT
        "$each" -F
        "$each" -X
    done
    rm /run/xtables.lock
fi
if [ -e /run/other.pid ]; then
    pid=$(cat /run/other.pid)
    kill "$pid"
    {WAIT_FOR_NO_DNSMASQ}
    rm -f /run/other.pid
fi
"""
ACCEPTS = """\
-I DOCKER-USER -i qn-x -m comment --comment "qemu-netwrap: x" -j ACCEPT
-I INPUT -i qn-x -p udp --dport 67 -m comment --comment "qemu-netwrap: x" -j ACCEPT
"""
MAKE_CLOSED_CHAIN = """
nft add table inet theirs
nft 'add chain inet theirs passing { type filter hook forward priority 0; policy drop; }'
nft 'add rule inet theirs passing iifname "qn-x" accept comment "mark of x"'
"""
# What is firewalld's stays: it is there before.
CLEAR_BESIDE_FIREWALLD = f"""
rm -rf /run/qemu-netwrap
{FIREWALL_CMD} --remove-interface=qn-x || :
"""
KILL_LOOKOUT = """
pid=$(cut -d" " -f1 /run/qemu-netwrap/*/networks/qn-x/lookout)
kill -9 -"$(ps -o pgid= -p "$pid" | tr -d " ")"
while [ -d "/proc/$pid" ]; do sleep 0.01; done
"""
DELETE_RULES = (
    "for each in 32763 32763 32763 32765; do ip -4 rule del pref $each; done;"
    " for each in 32763 32764 32765; do ip -6 rule del pref $each; done"
)
UNMANAGED = (
    "/run/NetworkManager/conf.d/qemu-netwrap-qn-x.conf"
    " /run/systemd/network/05-qemu-netwrap-qn-x.network"
)
MACS = "/run/qemu-netwrap/*/macs"
ANY = "/run/qemu-netwrap/*/networks/qn-x/hosts/any-*"


@dataclass(frozen=True)
class Case:
    """One kind. What is shell runs on the machine; what the test made itself is there before."""

    owner: str
    resources: tuple[Resource, ...]
    there: str  # succeeds when it has been acquired
    remove: str  # somebody else takes it away
    replace: str  # somebody else makes another of the same name
    prepare: str = ":"
    beside: Callable[[Host], None] | None = None  # starts somebody else
    clear: str = CLEAR


def firewalld(host: Host) -> None:
    """Start it; the zones that are used have their chains from the start."""
    neighbours.firewalld(host)
    for zone in ("trusted", "internal"):
        neighbours.use_firewalld_zone(host, zone)


CASES = {
    "Bridge": Case(
        "net/qn-x",
        (BRIDGE,),
        there=f"ip link show qn-x | grep -q {MAC}",
        remove="ip link del qn-x",
        replace=REMAKE_BRIDGE,
    ),
    "Uplink": Case(
        "net/qn-x",
        (BridgeUplink("up0", "qn-x"),),
        there="ip link show up0 | grep -q 'master qn-x'; ip route | grep -q '^10.7.0.0/24.*qn-x'",
        remove="ip link del up0",
        replace="ip link del up0; ip link add up0 type bridge",
        prepare=f"{MAKE_BRIDGE_WITH_PORT}\n{MAKE_UPLINK}",
    ),
    "Address": Case(
        "net/qn-x",
        (Address("qn-x", "10.9.0.1/24"),),
        there="ip address show qn-x | grep -q 'inet 10.9.0.1/24 brd 10.9.0.255'",
        remove="ip address del 10.9.0.1/24 dev qn-x",
        replace=f"{REMAKE_BRIDGE}; ip address add 10.9.0.1/24 brd + dev qn-x",
        prepare=MAKE_BRIDGE,
    ),
    "Address of IPv6": Case(
        "net/qn-x",
        (Address("qn-x", "fd00:9::1/64"),),
        there="ip address show qn-x | grep -q 'inet6 fd00:9::1/64 scope global nodad'",
        remove="ip address del fd00:9::1/64 dev qn-x",
        # The kernel adds the local route a moment later.
        replace=(
            f"{REMAKE_BRIDGE}; ip address add fd00:9::1/64 dev qn-x nodad;"
            " while ! ip -6 route show table local | grep -q fd00:9::1; do sleep 0.01; done"
        ),
        prepare=f"{MAKE_BRIDGE}\n{WITH_IPV6}",
    ),
    "Bridge with IPv6": Case(
        "net/qn-x",
        (BRIDGE.replace(group=7, guarded=True, link_local="fe80::9/64", mtu=1400),),
        there=(
            "ip link show qn-x | grep -q 'mtu 1400 .* group 7 ';"
            " ip address show qn-x | grep -q 'inet6 fe80::9/64'"
        ),
        remove="ip link del qn-x",
        replace=REMAKE_BRIDGE,
    ),
    "Switch": Case(
        "net/qn-x",
        (Switch("up0", "accept_ra", "1", "2", "qn-x"),),
        there="grep -qx 2 /proc/sys/net/ipv6/conf/up0/accept_ra",
        remove="ip link del up0",
        replace=(
            "ip link del up0; ip link add up0 type bridge;"
            " echo 2 >/proc/sys/net/ipv6/conf/up0/accept_ra"
        ),
        prepare="ip link add up0 type bridge",
    ),
    "Switch of all": Case(
        "net/qn-x",
        (Switch(ALL, "forwarding", "0", "1", "qn-x"),),
        there="grep -qx 1 /proc/sys/net/ipv6/conf/all/forwarding",
        # Who switches it off means all of it.
        remove="echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        replace="echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        prepare=f"{MAKE_BRIDGE}\n{FORWARD_ALONE}",
    ),
    "DeviceSetting": Case(
        "net/qn-x",
        (BRIDGE, Sysctl("qn-x", "ipv6", "accept_ra", "0")),
        there="grep -qx 0 /proc/sys/net/ipv6/conf/qn-x/accept_ra",
        remove="ip link del qn-x",
        replace=f"{REMAKE_BRIDGE}; echo 2 >/proc/sys/net/ipv6/conf/qn-x/accept_ra",
    ),
    "Forwarding": Case(
        "net/qn-x",
        (Forwarding("up0", "qn-x"),),
        there="grep -qx 1 /proc/sys/net/ipv4/conf/up0/forwarding",
        remove="ip link del up0",
        replace=(
            "ip link del up0; ip link add up0 type bridge;"
            " echo 1 >/proc/sys/net/ipv4/conf/up0/forwarding"
        ),
        prepare="ip link add up0 type bridge",
    ),
    "Rules": Case(
        "net/qn-x",
        (NetworkChains("qn-x", CHAINS),),
        there="nft list table inet qemu_netwrap | grep -q 'chain qn-x_postrouting'",
        remove="nft delete table inet qemu_netwrap",
        replace=(
            "nft delete table inet qemu_netwrap; nft add table ip qemu_netwrap;"
            " nft add chain ip qemu_netwrap qn-x_forward"
        ),
    ),
    "Lookout": Case(
        "net/qn-x",
        (Lookout("qn-x"),),
        there='[ "$(cut -d" " -f5 "/proc/$(cut -d" " -f1 $(echo /run/qemu-netwrap/*/networks'
        '/qn-x/lookout))/stat")" != 0 ]',
        remove=KILL_LOOKOUT,
        replace=f"{KILL_LOOKOUT} echo 1 1 >$(echo /run/qemu-netwrap/*/networks/qn-x)/lookout",
    ),
    "Guard": Case(
        "net/qn-x",
        (RouterGuard("qn-x", "ipv4 iif up0\nipv4 to 10.9.0.0/24\nipv6 all"),),
        there="ip -4 rule | grep -q 'fwmark 0 iif up0 .*blackhole' && "
        " ip -4 rule | grep -q 'to 10.9.0.0/24 fwmark 0 blackhole' && "
        " ip -4 rule | grep -q 'iif lo goto 32765' &&"
        " ip -6 rule | grep -q 'all fwmark 0 blackhole'",
        remove=DELETE_RULES,
        replace=f"{DELETE_RULES}; ip rule add pref 32763 iif up0 blackhole",
        prepare="ip link add up0 type bridge",
        clear=f"{CLEAR}\nip rule del pref 32763 iif up0 blackhole 2>/dev/null || :",
    ),
    **{
        f"IptablesAccepts {program}": Case(
            "net/qn-x",
            (IptablesAccepts("qn-x", program, "qemu-netwrap: x", ACCEPTS),),
            there=(
                f"{program} -S DOCKER-USER | grep -q 'i qn-x .*qemu-netwrap: x';"
                f" {program} -S INPUT | grep -q 'i qn-x .*qemu-netwrap: x'"
            ),
            remove=f"{program} -F DOCKER-USER; {program} -F INPUT",
            replace=f"{program} -F; {program} -I DOCKER-USER -i qn-x -j ACCEPT",
            prepare=f"{program} -P INPUT DROP; {program} -N DOCKER-USER; {program} -I FORWARD -j"
            f" DOCKER-USER; {program} -I DOCKER-USER -i qn-x -j ACCEPT; {program} -S >/dev/null",
        )
        for program in ("ip6tables-nft", "iptables-legacy")
    },
    "NftAccepts": Case(
        "net/qn-x",
        (
            NftAccepts(
                *("qn-x", "inet", "theirs", "passing", "mark of"),
                'iifname "qn-x" accept\noifname "qn-x" ct state established,related accept\n',
            ),
        ),
        there='[ "$(nft list chain inet theirs passing | grep -c "mark of\\"")" = 2 ]',
        remove="nft delete table inet theirs",
        replace=f"nft delete table inet theirs; {MAKE_CLOSED_CHAIN}",
        prepare=MAKE_CLOSED_CHAIN,
    ),
    "FirewalldZone": Case(
        "net/qn-x",
        (FirewalldZone("qn-x", "trusted"),),
        there=f"[ $({FIREWALL_CMD} --get-zone-of-interface=qn-x) = trusted ]",
        remove=f"{FIREWALL_CMD} --remove-interface=qn-x",
        replace=f"{FIREWALL_CMD} --zone=internal --change-interface=qn-x",
        beside=firewalld,
        clear=CLEAR_BESIDE_FIREWALLD,
    ),
    "Unmanaged": Case(
        "net/qn-x",
        (UnmanagedDevices("qn-x", "NetworkManager"), UnmanagedDevices("qn-x", "systemd-networkd")),
        there=f"grep -q qn-x {UNMANAGED}",
        remove="rm -r /run/NetworkManager/conf.d /run/systemd/network",
        replace=(
            f"rm {UNMANAGED}; rmdir /run/NetworkManager/conf.d;"
            " echo theirs >/run/systemd/network/10-theirs.network"
        ),
        prepare="mkdir -p /run/NetworkManager /run/systemd/netif",
    ),
    "Dnsmasq": Case(
        "net/qn-x",
        (DnsmasqServer("qn-x", DNSMASQ),),
        there='[ -d "/proc/$(cat /run/qemu-netwrap/*/networks/qn-x/dnsmasq.pid)" ]',
        remove=KILL_DNSMASQ,
        replace=f"{KILL_DNSMASQ}\n{OTHER_DNSMASQ}",
        prepare=f"{MAKE_BRIDGE}\nip address add 10.9.0.1/24 dev qn-x",
    ),
    "HostName": Case(
        "run/77",
        (DhcpHost("qn-x", "77", MAC, "guest"),),
        there=f"grep -qx '77 qn-x' {MACS}/{MAC}",
        remove=f"rm {MACS}/{MAC}",
        replace=f"printf '88 qn-x' >$(echo {MACS})/{MAC}",
    ),
    "AnyClient": Case(
        "net/qn-x",
        (DnsmasqServer("qn-x", DNSMASQ), AnyClient("qn-x", "vm~")),
        there=f"grep -qxF '*:*:*:*:*:*' {ANY}",
        remove=f"rm {ANY}; {KILL_DNSMASQ}",
        replace=f"echo 52:54:00:00:00:99 >$(echo {ANY}); {KILL_DNSMASQ}",
        prepare=f"{MAKE_BRIDGE}\nip address add 10.9.0.1/24 dev qn-x",
    ),
    "Forwards": Case(
        "run/77",
        (PortForwardChains("qn77-0", FORWARDS),),
        there="nft list chain inet qemu_netwrap qn77-0_output",
        remove="nft delete table inet qemu_netwrap",
        replace="nft 'delete table inet qemu_netwrap; add table inet other'",
    ),
    "MacFilter": Case(
        "run/77",
        (Tap("qn77-0", "qn-x"), MacFilter("qn77-0", MAC)),
        there=f"bridge fdb show dev qn77-0 | grep -q '{MAC} sticky .*static' &&"
        " bridge -d link show dev qn77-0 | grep -q 'learning off.*locked on'",
        remove="ip link del qn77-0",
        replace="ip link del qn77-0; ip tuntap add qn77-0 mode tap",
        prepare=MAKE_BRIDGE_WITH_PORT,
    ),
    "IpFilter": Case(
        "run/77",
        (Tap("qn77-0", "qn-x"), IpFilter("qn77-0", "qn-x", "10.9.0.1/24")),
        there="tc filter show block $(tc qdisc show dev qn77-0 |"
        " sed -n 's/.*ingress_block \\([0-9]*\\).*/\\1/p') | grep -q 'handle 0x1 direct-action'",
        remove="ip link del qn77-0",
        replace="ip link del qn77-0; ip tuntap add qn77-0 mode tap",
        prepare=MAKE_BRIDGE_WITH_PORT,
    ),
    "IpFilter of the user's tap": Case(
        "run/77",
        (IpFilter("qn77-0", "qn-x", "10.9.0.1/24", foreign=True),),
        there="tc qdisc show dev qn77-0 | grep -q ingress_block",
        remove="tc qdisc del dev qn77-0 clsact",
        replace="ip link del qn77-0; ip tuntap add qn77-0 mode tap",
        prepare=MAKE_USERS_TAP,
    ),
    "Plug": Case(
        "run/77",
        (AttachedTap("qn77-0", 5, "qn-x", "52:54:00:00:00:03", 1500, up=False, plugged=False),),
        there="ip link show qn77-0 | grep -q 'UP.* master qn-x '",
        remove="ip link del qn77-0",
        replace="ip link del qn77-0; ip tuntap add qn77-0 mode tap",
        prepare=MAKE_USERS_TAP,
    ),
    "Plug of a port": Case(
        "run/77",
        (
            AttachedTap(
                *("qn77-0", 5, "qn-x", "52:54:00:00:00:03", 1500),
                up=False,
                plugged=True,
                isolated=True,
            ),
        ),
        there="ip -d link show qn77-0 | grep -q 'isolated on'",
        remove="ip link del qn77-0",
        replace="ip link del qn77-0; ip tuntap add qn77-0 mode tap",
        prepare=f"{MAKE_USERS_TAP}\nip link set qn77-0 master qn-x",
    ),
    "Tap": Case(
        "run/77",
        (Tap("qn77-0", "qn-x", queues=2),),
        there="ip link show qn77-0 | grep -q 'UP.* master qn-x'",
        remove="ip link del qn77-0",
        replace="ip link del qn77-0; ip tuntap add qn77-0 mode tap",
        prepare=MAKE_BRIDGE_WITH_PORT,
    ),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest, host: Host, watch: Watch) -> Iterator[Case]:
    """Yield each kind in turn, on a machine prepared for it."""
    found: Case = request.param
    if found.beside:
        found.beside(host)
        watch.baseline(host)
    sh(host, found.prepare)
    yield found
    sh(host, found.clear)


def sh(host: Host, script: str) -> None:
    host.run("sh", "-euc", script)


def release(actor: Actor, case: Case) -> None:
    """Release what a case acquired; for a name that is its network's folder too."""
    assert actor.release(case.owner)["errors"] == []
    assert actor.release("net/qn-x")["errors"] == []


def without_state(taken: Snapshot) -> dict[str, object]:
    """Return what is seen outside our own folder, and outside our own processes."""
    return {
        subject: facts
        for subject, facts in taken.facts.items()
        if "/run/qemu-netwrap" not in subject and "acting.py" not in str(facts)
    }


def test_acquired_and_released_twice(case: Case, host: Host, actors: Actors) -> None:
    before, actor = snapshot(host), actors()
    assert actor.acquire(case.owner, *case.resources)["errors"] == []
    sh(host, case.there)
    release(actor, case)
    release(actor, case)
    actor.kill()
    wait_same(host, before)


def test_released_by_another_process(case: Case, host: Host, actors: Actors) -> None:
    """The one that acquired it was killed afterwards."""
    before, actor = snapshot(host), actors()
    actor.acquire(case.owner, *case.resources)
    sh(host, case.there)
    actor.kill()
    other = actors()
    release(other, case)
    release(other, case)
    other.kill()
    wait_same(host, before)


def test_removed_by_somebody_else(case: Case, host: Host, actors: Actors) -> None:
    actor = actors()
    actor.acquire(case.owner, *case.resources)
    sh(host, case.remove)
    now = without_state(snapshot(host))
    release(actor, case)
    actor.kill()
    after = snapshot(host)
    assert without_state(after) == now
    assert not [subject for subject in after.facts if "qemu-netwrap" in subject]


def test_replaced_by_somebody_else(case: Case, host: Host, actors: Actors) -> None:
    """What has the same name by now is somebody else's."""
    actor = actors()
    actor.acquire(case.owner, *case.resources)
    sh(host, case.replace)
    now = without_state(snapshot(host))
    if isinstance(case.resources[0], DhcpHost):
        assert actor.release(case.owner)["errors"] == []
        sh(host, f"grep -qx '88 qn-x' {MACS}/{MAC}; rm {MACS}/{MAC}")
    release(actor, case)
    actor.kill()
    after = snapshot(host)
    assert without_state(after) == now
    assert not [subject for subject in after.facts if "qemu-netwrap" in subject]


# How many steps of a case a sample has.
STEPS = 4


def test_crash_at_any_step_of_acquiring(case: Case, host: Host, actors: Actors) -> None:
    before, crashes = snapshot(host), 0
    whole = actors()
    steps = whole.acquire(case.owner, *case.resources)["steps"]
    whole.kill()
    finish(host, case, before, actors)
    assert steps >= 3
    for step in sampled(range(1, steps + 1), STEPS, f"acquire {case.owner} {case.resources}"):
        actor = actors()
        try:
            actor.acquire(case.owner, *case.resources, die=step)
        except DiedError:
            crashes += 1
        finally:
            actor.kill()
        finish(host, case, before, actors)
    assert crashes


def test_crash_at_any_step_of_releasing(case: Case, host: Host, actors: Actors) -> None:
    before, crashes = snapshot(host), 0
    whole = actors()
    whole.acquire(case.owner, *case.resources)
    steps = whole.release(case.owner)["steps"]
    whole.kill()
    finish(host, case, before, actors)
    assert steps >= 1
    for step in sampled(range(1, steps + 1), STEPS, f"release {case.owner} {case.resources}"):
        actor = actors()
        actor.acquire(case.owner, *case.resources)
        try:
            actor.release(case.owner, die=step)
        except DiedError:
            crashes += 1
        finally:
            actor.kill()
        finish(host, case, before, actors)
    assert crashes


def test_intent_cut_short(case: Case, host: Host, actors: Actors) -> None:
    """A line without its end was being written when the crash came: nothing had begun."""
    before, actor = snapshot(host), actors()
    *first, last = case.resources
    actor.acquire(case.owner, *first)
    actor.kill()
    kind, _, name = case.owner.partition("/")
    folder = f"/run/qemu-netwrap/*/{'networks' if kind == 'net' else 'runs'}/{name}"
    script = f'printf %s "$1" >>$(echo {folder})/journal'
    host.run("sh", "-euc", script, "cut", f"+{len(first) + 1}\t{last.to_line()}"[:-3])
    finish(host, case, before, actors)


def finish(host: Host, case: Case, before: Snapshot, actors: Actors) -> None:
    """Have a new process release everything, and see that nothing is left."""
    actor = actors()
    release(actor, case)
    actor.kill()
    wait_same(host, before)


def test_tap_that_somebody_still_holds(host: Host, actors: Actors) -> None:
    """A run is over when its lock is free; a descriptor that lives on keeps no tap."""
    sh(host, MAKE_BRIDGE_WITH_PORT)
    before, holder = snapshot(host), actors()
    holder.acquire("run/77", Tap("qn77-0", "qn-x"))
    actor = actors()
    assert actor.release("run/77")["errors"] == []
    assert host.run("ip", "link", "show", "qn77-0", check=False).returncode
    holder.kill()
    actor.kill()
    wait_same(host, before)
    sh(host, CLEAR)


THERE_FIRST = {
    "Bridge": MAKE_BRIDGE,
    "Tap": "ip tuntap add qn77-0 mode tap",
    "Address": "ip address add 10.9.0.1/24 dev qn-x",
}


@pytest.mark.parametrize("kind", THERE_FIRST)
def test_somebody_was_there_first(kind: str, host: Host, actors: Actors) -> None:
    """What is there already is not taken over, and is there still after the failure."""
    case = CASES[kind]
    sh(host, f"{case.prepare}\n{THERE_FIRST[kind]}")
    before, actor = snapshot(host), actors()
    assert len(actor.acquire(case.owner, *case.resources)["errors"]) == 1
    release(actor, case)
    actor.kill()
    differences = before.diff(snapshot(host))
    sh(host, CLEAR)
    assert differences == []
