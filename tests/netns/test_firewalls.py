"""Firewalls of every shape beside a nat network: DHCP, DNS and the way out go on working.

The guest is a machine at a port of the network's bridge: DHCP and all else are real.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from lab.lan import settled
from lab.netns import WEB_ADDRESS, WEB_BODY, Host, link, wait_for
from lab.tool import QEMU, netwrap, unhurried

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fixtures import Watch
    from lab.netns import Uplinked

CONFIGURED = "/etc/qemu-netwrap/config.toml"
ANY_CLIENT = '[networks.nat]\nmode = "nat"\nmac_filter = false\nip_filter = false\n'
_LEASED = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "nameserver $dns" >/etc/resolv.conf
"""
_OUT = "-A OUTPUT -o eth0 -j ACCEPT"
_KNOWN = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
# Each has the guest cut off, if the accepts are not where they have to be: shell, run on the host.
CLOSED = {
    "a jump": f"""
        for each in iptables-nft ip6tables-nft; do
            $each -N closed; $each -A closed -j LOG; $each -A closed -j DROP
            for chain in INPUT FORWARD; do $each -A $chain {_KNOWN}; $each -A $chain -j closed; done
        done""",
    "a goto behind a jump": f"""
        for each in iptables-nft ip6tables-nft; do
            $each -N refuse; $each -A refuse -j REJECT; $each -N own; $each -A own -g refuse
            for chain in INPUT FORWARD; do $each -A $chain {_KNOWN}; $each -A $chain -j own; done
        done""",
    "a legacy jump": f"""
        for each in iptables-legacy ip6tables-legacy; do
            $each -N closed; $each -A closed -j DROP
            for chain in INPUT FORWARD; do $each -A $chain {_KNOWN}; $each -A $chain -j closed; done
        done""",
    "a legacy chain of 3000 rules": f"""
        {{
            echo '*filter'; echo ':INPUT ACCEPT'; echo '-A INPUT {_KNOWN}'
            seq 3000 | sed 's/.*/-A INPUT -p tcp -m tcp --dport & -j ACCEPT/'
            echo '-A INPUT -j DROP'; echo COMMIT
        }} | iptables-legacy-restore""",
    "a map of verdicts": """
        nft -f - <<'EOF'
        table inet theirs {
            chain wan { ct state established,related accept; drop; }
            chain in {
                type filter hook input priority 0
                iifname vmap { "lo" : accept, "eth0" : jump wan, "qn*" : goto wan }
            }
            chain passing {
                type filter hook forward priority 0
                ct state vmap { established : accept, related : accept, new : jump wan }
            }
        }
EOF""",
    "what the host sends": f"""
        iptables-nft -P OUTPUT DROP; iptables-nft {_OUT}; iptables-nft -A OUTPUT -o lo -j ACCEPT""",
    "what the host sends, legacy": f"iptables-legacy -P OUTPUT DROP; iptables-legacy {_OUT}",
    "what the host sends, by nft": """
        nft -f - <<'EOF'
        table inet killswitch {
            chain out { type filter hook output priority 0; oifname != { "lo", "eth0" } drop; }
            chain passing { type filter hook forward priority 0; policy drop; }
        }
EOF""",
    "drops with a match": """
        iptables-nft -A INPUT -p udp --dport 67 -j DROP
        iptables-nft -A INPUT -d 255.255.255.255 -j DROP
        iptables-nft -A FORWARD -s 10.0.0.0/8 -m conntrack --ctstate NEW -j DROP
        nft 'add table ip theirs; add chain ip theirs c { type filter hook input priority 5; }'
        nft 'add rule ip theirs c iifname != { "lo", "eth0" } meta l4proto { tcp, udp } drop'""",
    "prerouting": """
        nft -f - <<'EOF'
        table inet early {
            chain raw {
                type filter hook prerouting priority raw
                iifname { "lo", "eth0" } accept
                drop
            }
        }
EOF
        iptables-nft -t mangle -N none; iptables-nft -t mangle -A none -j DROP
        iptables-nft -t mangle -A PREROUTING ! -i eth0 -p udp -m multiport --dports 53,67 -j none
        iptables-legacy -t raw -A PREROUTING -p udp --dport 67 -j DROP""",
    "ARP": """
        nft 'add table arp t; add chain arp t i { type filter hook input priority 0; policy drop; }'
        nft 'add rule arp t i iifname "eth0" accept'""",
}
# Not even the network is in question here.
OPEN = """
    for each in iptables-nft iptables-legacy; do
        $each -N f2b; $each -A f2b -s 192.0.2.7 -j REJECT; $each -A f2b -j RETURN
        $each -A INPUT -p tcp -m multiport --dports 22,25 -j f2b
        $each -A INPUT -m conntrack --ctstate INVALID -j DROP
        $each -A INPUT -i docker0 -j DROP
        $each -A FORWARD -d 192.0.2.0/24 -j DROP
    done
    nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }'
    nft 'add rule inet t i ct state vmap { invalid : drop, established : accept }'
    nft 'add rule inet t i ct state invalid drop; add rule inet t i tcp dport 54-66 reject'
    nft 'add rule inet t i iifname "eth*" drop; add rule inet t i iif lo drop'
    nft 'add chain inet t o { type filter hook output priority 0; }'
    nft 'add rule inet t o tcp dport 25 drop'
    nft 'add chain inet t n { type nat hook prerouting priority -100; policy accept; }'
"""
BY_BRIDGE = (
    "add table bridge b; add chain bridge b f { type filter hook input priority 0; policy drop; }"
)


@contextlib.contextmanager
def guest_on(host: Host, bridge: str) -> Iterator[Host]:
    """Yield a machine whose eth0 is a port of BRIDGE."""
    # The guest's MAC is not known: it is no tap of a run.
    with Host("guest") as guest:
        link(guest, "eth0", host, "port0")
        host.run("ip", "link", "set", "port0", "master", bridge)
        guest.write("/run/leased", _LEASED, mode=0o755)
        yield guest
        guest.run("ip", "link", "del", "eth0")


def has_lease(guest: Host, tries: int = 60) -> bool:
    """Whether the guest gets a lease; it takes it."""
    words = ("busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", str(tries), "-T", "1")
    return not guest.run(*words, "-s", "/run/leased", check=False).returncode


def page(guest: Host, patience: int = 60) -> str:
    """Return the internet's page, empty when it does not come within PATIENCE seconds."""
    words = ("timeout", str(patience), "busybox", "wget", "-qO-", f"http://{WEB_ADDRESS}/")
    return guest.run(*words, check=False).stdout


@pytest.mark.parametrize("kind", CLOSED)
def test_guests_are_let_through(kind: str, uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    host.write(CONFIGURED, ANY_CLIENT)
    host.sh(CLOSED[kind])
    watch.baseline(host)
    up = netwrap(host, "network", "up", "nat", check=True)
    assert unhurried(up.stderr) == ""
    with guest_on(host, "qn-nat") as guest:
        assert has_lease(guest)
        words = ("busybox", "nslookup", "-type=a", "www.example.test")
        wait_for(lambda: WEB_ADDRESS in guest.run(*words, check=False).stdout, "the name")
        assert page(guest) == WEB_BODY
    netwrap(host, "network", "down", "nat", check=True)


def test_a_firewall_that_is_in_nobodys_way_is_left_as_it_is(
    uplinked: Uplinked, watch: Watch
) -> None:
    host = uplinked.host
    alone = netwrap(host, "plan", QEMU, "-nic", "nat", check=True).stdout
    host.sh(OPEN)
    watch.baseline(host)
    assert netwrap(host, "plan", QEMU, "-nic", "nat", check=True).stdout == alone


def test_what_is_closed_of_the_outside_stays_closed(uplinked: Uplinked, watch: Watch) -> None:
    """Targets and ports of what is forwarded are the owner's to choose."""
    host = uplinked.host
    host.run("nft", "add table ip t; add chain ip t f { type filter hook forward priority 0; }")
    host.write(CONFIGURED, ANY_CLIENT)
    host.run("nft", "add rule ip t f tcp dport 80 drop")
    host.run("nft", "add rule ip t f ip daddr 192.0.2.1 drop")
    watch.baseline(host)
    netwrap(host, "network", "up", "nat", check=True)
    with guest_on(host, "qn-nat") as guest:
        assert has_lease(guest)
        assert page(guest, 3) == ""
        assert "qemu-netwrap" not in host.run("nft", "list", "table", "ip", "t").stdout
    netwrap(host, "network", "down", "nat", check=True)


def test_a_firewall_for_bridges(host: Host, watch: Watch) -> None:
    """Its rules name the bridge (nft's ibrname); a kernel that cannot do that is told of."""
    host.write(CONFIGURED, ANY_CLIENT.replace("nat", "host-only", 2))
    host.run("nft", BY_BRIDGE)
    watch.baseline(host)
    up = netwrap(host, "network", "up", "host-only", check=True)
    with guest_on(host, "qn-host-only") as guest:
        leased = has_lease(guest, 4)
    assert leased or up.stderr.startswith("qemu-netwrap: qn-host-only: nft chain bridge b f drops")
    assert leased or "remedy: nft 'insert rule bridge b f iifname \"qn*\" accept'" in up.stderr
    netwrap(host, "network", "down", "host-only", check=True)


def test_a_firewall_over_somebody_elses_bridge_is_told(host: Host, watch: Watch) -> None:
    host.sh("ip link add br0 address 52:54:00:00:00:01 type bridge")
    host.sh("ip link add port0 type veth peer name port1; ip link set port0 master br0 up")
    host.sh("ip link set port1 up; ip link set br0 up")
    settled(host)
    host.run("nft", BY_BRIDGE)
    watch.baseline(host)
    told = netwrap(host, "--", "true", "-nic", "bridge,br=br0", check=True).stderr
    assert "bridge b f may drop frames of its guests" in told
    assert "remedy: nft 'insert rule bridge b f meta ibrname" in told
    netwrap(host, "wait", check=True)


# Rules that come before the accepts for a network: what they drop, and how they are taken away.
DROPS = {
    "requests, by nft": (
        "drops guests' DHCP",
        (
            "nft add table ip t; nft add chain ip t i '{ type filter hook input priority -300; }';"
            " nft add rule ip t i udp dport 67 drop"
        ),
        "nft delete table ip t",
    ),
    "requests, by legacy iptables": (
        "drops guests' DHCP",
        "iptables-legacy -t raw -A PREROUTING -p udp --dport 67 -j DROP",
        "iptables-legacy -t raw -F",
    ),
    "answers": (
        "drops DHCP's answers",
        "iptables-legacy -t mangle -A OUTPUT -p udp --dport 68 -j DROP",
        "iptables-legacy -t mangle -F",
    ),
}


@pytest.mark.parametrize("what", DROPS)
def test_doctor_tries_whether_dhcp_passes(what: str, uplinked: Uplinked, watch: Watch) -> None:
    """It sends a request and an answer by the bridge, rather than to believe what rules say."""
    host = uplinked.host
    says, drop, undo = DROPS[what]
    host.sh(f"{drop}; {undo}")  # legacy tables stay, empty, once they have been used
    watch.baseline(host)
    netwrap(host, "network", "up", "nat", check=True)
    before = netwrap(host, "doctor").stdout
    host.sh(drop)
    found = netwrap(host, "doctor").stdout
    host.sh(undo)
    assert says not in before
    assert says in found
    assert netwrap(host, "doctor").stdout == before
    netwrap(host, "network", "down", "nat", check=True)


def test_doctor_sends_again_what_got_lost(uplinked: Uplinked, watch: Watch) -> None:
    """A bridge whose carrier has just come drops the first packets, as these rules do."""
    host = uplinked.host
    first = "quota until 400 bytes counter drop"  # one packet, and not a second one
    chain = "nft add table ip t; nft add chain ip t {0} '{{ type filter hook {0} priority -300; }}'"
    watch.baseline(host)
    netwrap(host, "network", "up", "nat", check=True)
    host.sh(f"{chain.format('input')}; {chain.format('output')}")
    host.sh(f"nft add rule ip t input udp dport 67 {first}")
    host.sh(f"nft add rule ip t output udp dport 68 {first}")
    found = netwrap(host, "doctor").stdout
    lost = host.sh("nft list table ip t")
    host.sh("nft delete table ip t")
    netwrap(host, "network", "down", "nat", check=True)
    assert not [says for says, _, _ in DROPS.values() if says in found]
    assert lost.count("counter packets 1 ") == 2
