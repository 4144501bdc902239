"""Guests beside other firewalls on the host: Docker's chains, ufw, firewalld, br_netfilter."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell
from lab import neighbours
from lab.netns import WEB_ADDRESS, WEB_BODY, wait_for
from lab.tool import QEMU, netwrap, unhurried

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

NAT = ("-nic", "nat,model=virtio")
URL = f"http://{WEB_ADDRESS}/"
CUT_OFF = f"timeout 2 wget -qO- {URL} || echo cut off"
# It may be used when nobody else is known to have it.
LINK_LOCAL = (
    "until ip -6 -o address show dev eth0 scope link | grep -v tentative | grep inet6 >/found;"
    " do sleep 0.1; done; sed 's/.*inet6 //; s|/.*||' /found"
)
THEIRS = """
table inet theirs {
    chain in { type filter hook input priority 0; policy drop; ct state established accept; }
}
table ip filter {
    chain forwarded {
        type filter hook forward priority 0; policy accept;
        reject
    }
}
table ip6 theirs {
    chain FORWARD { type filter hook forward priority 0; policy accept; tcp dport 1 drop; }
}
"""
OWNED = """\
add table inet owned { flags owner; }
add chain inet owned passing { type filter hook forward priority 0; policy drop; }
"""


def planned(host: Host) -> str:
    return netwrap(host, "plan", QEMU, *NAT, check=True).stdout


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_docker(kind: str, uplinked: Uplinked, watch: Watch) -> None:
    """Docker drops what is forwarded, and what its user's chain accepts is let through."""
    host = uplinked.host
    neighbours.docker(host, f"iptables-{kind}", f"ip6tables-{kind}")
    watch.baseline(host)
    said = planned(host)
    for program in (f"iptables-{kind}", f"ip6tables-{kind}"):
        assert f"{program} -I DOCKER-USER -i qn-nat -m comment" in said
        assert f"{program} -D DOCKER-USER -i qn-nat -m comment" in said
    with Shell(host, *NAT, name="one") as guest:
        assert guest.get(URL) == WEB_BODY
        # Somebody takes the accepts away: it was they.
        host.run(f"iptables-{kind}", "-F", "DOCKER-USER")
        assert guest.ask(CUT_OFF) == "cut off\n"
        host.run(f"iptables-{kind}", "-A", "DOCKER-USER", "-j", "RETURN")
        guest.power_off()
        assert unhurried(guest.stderr) == ""


def test_ufw(uplinked: Uplinked, watch: Watch) -> None:
    """Nothing comes in: no DHCP, no DNS; nothing is forwarded."""
    host = uplinked.host
    neighbours.ufw(host)
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        assert guest.lease.gateway != "-"
        assert WEB_ADDRESS in guest.lookup("www.example.test")
        assert guest.get(URL) == WEB_BODY
        guest.ask(LINK_LOCAL)
        shown = host.sh("ip -6 -o address show dev qn-nat scope link")
        gateway = shown.split()[3]
        by_ipv6 = f"nslookup -type=a www.example.test {gateway.partition('/')[0]}%eth0"
        assert WEB_ADDRESS in guest.ask(f"try 5 {by_ipv6}")
        host.run("/usr/bin/python3", "/usr/sbin/ufw", "reload")
        assert guest.get(URL) == WEB_BODY
        host.run("sh", "-c", "for each in 1 2; do iptables -D FORWARD 1; done")
        assert guest.ask(CUT_OFF) == "cut off\n"
        guest.power_off()
        assert unhurried(guest.stderr) == ""


def test_firewalld(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    neighbours.firewalld(host)
    neighbours.use_firewalld_zone(host, "trusted")
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        assert guest.lease.gateway != "-"
        assert WEB_ADDRESS in guest.lookup("www.example.test")
        assert guest.get(URL) == WEB_BODY
        assert neighbours.firewall_cmd(host, "--get-zone-of-interface=qn-nat") == "trusted\n"
        neighbours.firewall_cmd(host, "--zone=trusted", "--remove-interface=qn-nat")
        assert guest.ask(CUT_OFF) == "cut off\n"
        guest.power_off()
        assert unhurried(guest.stderr) == ""


def test_frames_between_guests_that_docker_would_drop(host: Host, watch: Watch) -> None:
    """br_netfilter, which Docker switches on, has FORWARD see what goes over any bridge."""
    script = """
    ip link add lan0 address 52:54:00:00:00:01 type bridge
    ip link add port0 type veth peer name port1
    for each in lan0 port0 port1; do echo 1 >/proc/sys/net/ipv6/conf/$each/disable_ipv6; done
    ip link set port1 up
    ip link set port0 master lan0 up
    ip link set lan0 up
    until ip link show lan0 | grep -q 'state UP'; do sleep 0.01; done
    sysctl -eqw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
    """
    host.run("sh", "-euc", script)
    neighbours.docker(host, "iptables-nft", "ip6tables-nft")
    watch.baseline(host)
    on_lan = ("-nic", "bridge,br=lan0,model=virtio")
    with (
        Shell(host, *on_lan, name="one", address="10.7.0.1/24") as one,
        Shell(host, *on_lan, name="two", address="10.7.0.2/24") as two,
    ):
        two.wait_report("ready")
        assert one.get("http://10.7.0.2/") == "two\n"
        two.power_off()
        netwrap(host, "wait", str(two.pid), check=True)
        with Shell(host, *on_lan, name="three", address="10.7.0.3/24") as three:
            assert three.get("http://10.7.0.1/") == "one\n"
            link_local = one.ask(LINK_LOCAL).strip()
            three.ask(LINK_LOCAL)
            by_ipv6 = f"ping -6 -I eth0 -c1 -W2 {link_local} >/dev/null"
            three.ask(f"try 5 {by_ipv6}")
            for program in ("iptables-nft", "ip6tables-nft"):
                host.run(program, "-F", "DOCKER-USER")
            # Else the kernel has no br_netfilter, and firewalls see nothing of it.
            alone = host.run("test", "-e", "/proc/sys/net/bridge", check=False).returncode
            by_ipv4 = "timeout 2 wget -qO- http://10.7.0.1/ >/dev/null"
            for way in (by_ipv4, by_ipv6):
                assert three.ask(f"{way} || echo cut off") == ("" if alone else "cut off\n")
            for program in ("iptables-nft", "ip6tables-nft"):
                host.run(program, "-A", "DOCKER-USER", "-j", "RETURN")


def test_chains_of_somebody_elses_that_drop(uplinked: Uplinked, watch: Watch) -> None:
    """By policy, or by a last rule; in a table of somebody's own, by whatever name."""
    host = uplinked.host
    host.run("nft", "-f", "-", input=THEIRS)
    watch.baseline(host)
    said = planned(host)
    assert 'nft \'insert rule inet theirs in iifname "qn-nat" udp dport 67 accept' in said
    assert 'nft \'insert rule ip filter forwarded iifname "qn-nat" accept' in said
    assert "ip6 theirs" not in said
    with Shell(host, *NAT, name="one") as guest:
        assert guest.lease.gateway != "-"
        assert WEB_ADDRESS in guest.lookup("www.example.test")
        assert guest.get(URL) == WEB_BODY
        listed = host.run("nft", "list", "chain", "ip", "filter", "forwarded").stdout
        assert listed.count('comment "qemu-netwrap: qn-nat"') == 3
        host.run("nft", "flush chain ip filter forwarded; add rule ip filter forwarded drop")
        assert guest.ask(CUT_OFF) == "cut off\n"
        host.run("nft", "flush chain ip filter forwarded; add rule ip filter forwarded reject")
        guest.power_off()
        assert unhurried(guest.stderr) == ""


def test_a_table_that_is_for_its_owner_alone_to_change(uplinked: Uplinked, watch: Watch) -> None:
    """nft(8), flag `owner`: it is told, with the command that its owner might give."""
    host = uplinked.host
    owner = host.popen("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert owner.stdin is not None
    owner.stdin.write(OWNED)
    owner.stdin.flush()
    listed = ("nft", "list", "ruleset")
    wait_for(lambda: "chain passing" in host.run(*listed).stdout, "its table")
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        wait_for(lambda: "remedy: " in guest.stderr, "what to do")
        (line,) = unhurried(guest.stderr).splitlines()
        assert line.startswith("qemu-netwrap: qn-nat: nft chain inet owned passing drops")
        remedy = line.partition("remedy: ")[2]
        assert remedy.startswith('nft \'insert rule inet owned passing iifname "qn-nat" accept; ')
        assert guest.lease.gateway != "-"
        assert guest.ask(CUT_OFF) == "cut off\n"
        owner.stdin.write(remedy.removeprefix("nft '").removesuffix("'") + "\n")
        owner.stdin.flush()
        assert guest.get(URL) == WEB_BODY
        owner.stdin.write("flush chain inet owned passing\n")
        owner.stdin.flush()
        guest.power_off()


def test_name_server_on_every_address(uplinked: Uplinked, watch: Watch) -> None:
    """Ours is on another port, which guests do not see."""
    host = uplinked.host
    host.popen(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
        *("--no-hosts", "--no-resolv", "--address=/#/192.0.2.99"),
    )
    host.wait_listening("tcp", 53)
    neighbours.ufw(host)
    watch.baseline(host)
    with Shell(host, *NAT, name="one") as guest:
        assert guest.lease.dns == guest.lease.gateway
        assert WEB_ADDRESS in guest.lookup("www.example.test")
        assert guest.lease.address in guest.lookup("one.nat.internal")
        guest.power_off()
        assert unhurried(guest.stderr) == ""
