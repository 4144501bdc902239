"""What a hostile guest sends to the host itself: it does not configure it, nor is it anybody else.

Each attack is played on a bridge of the user's own too, which nobody guards: there it works.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import reached
from lab import hooked
from lab.netns import Host, wait_for
from lab.pumped import MAC, guest_of
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.fixtures import Watch
    from lab.netns import Uplinked

BRIDGES: Final = {"nat": "qn-nat", "host-only": "qn-host-only", "tap,br=br7": "br7"}
# ff01::1 and ff02::1
EVERYBODY: Final = {f"ff0{scope}0000000000000000000000000001" for scope in "12"}
FAR: Final = "198.51.100.80"  # behind the host's default route
ROUTER: Final = "203.0.113.1"
# Send Ethernet frames whose payload is in hexadecimal, from the guest's own MAC.
_SEND: Final = """
import socket, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
mac, target, *frames = sys.argv[1:]
for frame in frames:
    kind = {"4": "0800", "6": "86dd"}.get(frame[0], "")
    out.send(bytes.fromhex((target + mac).replace(":", "") + kind + frame))
"""
# Answer each datagram on port 5000 with where it came from, on standard output.
_LISTEN: Final = """
import socket
here = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
here.bind(("::", 5000))
print("listening", flush=True)
while True:
    _, (address, *_) = here.recvfrom(100)
    print(address.removeprefix("::ffff:").partition("%")[0], flush=True)
"""


def checksum(raw: bytes) -> bytes:
    raw += bytes(len(raw) % 2)
    words = (int.from_bytes(raw[n : n + 2], "big") for n in range(0, len(raw), 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def v4(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def v6(text: str) -> bytes:
    import ipaddress

    return ipaddress.IPv6Address(text).packed


def ip4(protocol: int, source: str, target: str, data: bytes, options: bytes = b"") -> bytes:
    length = 20 + len(options)
    head = bytes((0x40 | length // 4, 0)) + (length + len(data)).to_bytes(2, "big") + bytes(4)
    head += bytes((255, protocol)) + bytes(2) + v4(source) + v4(target) + options
    return head[:10] + checksum(head) + head[12:] + data


def ip6(
    header: int, source: str, target: str, data: bytes, *, before: bytes = b"", first: int = -1
) -> bytes:
    """Return an IPv6 packet; BEFORE is an extension header of kind FIRST."""
    pseudo = v6(source) + v6(target) + len(data).to_bytes(4, "big") + bytes((0, 0, 0, header))
    at = 2 if header == 58 else 6
    summed = data[:at] + checksum(pseudo + data) + data[at + 2 :]
    size = (len(before) + len(data)).to_bytes(2, "big")
    head = bytes((0x60, 0, 0, 0)) + size + bytes((first if before else header, 255))
    return head + v6(source) + v6(target) + before + summed


def udp(port: int) -> bytes:
    return (6000).to_bytes(2, "big") + port.to_bytes(2, "big") + (9).to_bytes(2, "big") + b"\0\0x"


def advertisement(*, before: bytes = b"", first: int = -1) -> bytes:
    """A router advertisement, of high preference, with a prefix to make addresses of."""
    prefix = bytes((3, 4, 64, 0xC0)) + b"\xff" * 8 + bytes(4) + v6("2001:db8:bad::")
    head = bytes((134, 0, 0, 0, 64, 0x08, 0x07, 0x08)) + bytes(8)
    own = bytes((1, 1)) + bytes.fromhex(MAC.replace(":", ""))
    return ip6(58, "fe80::bad", "ff02::1", head + own + prefix, before=before, first=first)


def redirect(host: str, options: bytes = b"") -> bytes:
    """An ICMP redirect of the host's gateway's, as for an echo reply of the host's."""
    about = ip4(1, "203.0.113.2", FAR, bytes(8))
    data = bytes((5, 1, 0, 0)) + v4("203.0.113.66") + about
    return ip4(1, ROUTER, host, data[:2] + checksum(data) + data[4:], options)


def tagged(packet: bytes, count: int) -> bytes:
    """A packet behind VLAN tags that name no VLAN, with the type of each."""
    kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0"
    return bytes((0x81, 0, 0, 0)) * count + kind + packet


ADVERTISEMENTS: Final = {
    "plain": advertisement(),
    "behind destination options": advertisement(before=b"\x3a\0\1\4\0\0\0\0", first=60),
    "behind hop-by-hop options": advertisement(before=b"\x3a\0\1\4\0\0\0\0", first=0),
    # Linux takes off any number of tags without a VLAN, the last ones behind a packet filter.
    "behind two tags": tagged(advertisement(), 2),
    "behind three tags": tagged(advertisement(), 3),
}


@pytest.fixture
def guest(uplinked6: Uplinked) -> Iterator[Host]:
    """A machine that is to be a guest of another."""
    with Host("guest") as machine:
        yield machine


@contextlib.contextmanager
def attacker(host: Host, guest: Host, folder: Path, word: str) -> Iterator[str]:
    """Have GUEST on the host with an address there; yield the host's address on that bridge."""
    with guest_of(host, guest, folder, word):
        bridge = BRIDGES.get(word) or word.partition("br=")[2]
        if bridge.startswith("br"):  # which the user may give addresses by hand
            host.run("ip", "address", "add", "192.168.77.1/24", "dev", bridge)
        shown = json.loads(host.run("ip", "-j", "address", "show", bridge).stdout)
        own = next(a["local"] for a in shown[0]["addr_info"] if a["family"] == "inet")
        guest.run("ip", "address", "add", f"{own.rpartition('.')[0]}.9/24", "dev", "eth0")
        assert reached(guest, own) == {own}
        yield own


def send(host: Host, guest: Host, own: str, *packets: bytes) -> None:
    """Send packets to the host; return when it has had them: what comes after has its answer."""
    neighbours = guest.run("ip", "neighbour", "show", own).stdout
    target = neighbours.partition("lladdr ")[2].split()[0]
    guest.run(sys.executable, "-c", _SEND, MAC, target, *(packet.hex() for packet in packets))
    assert reached(guest, own) == {own}


def learned(host: Host) -> str:
    """What the host has by the guest's advertisement."""
    shown = host.run("ip", "-6", "address").stdout + host.run("ip", "-6", "route").stdout
    return "\n".join(line for line in shown.splitlines() if ":bad" in line)


def redirected(host: Host) -> bool:
    return "203.0.113.66" in host.run("ip", "route", "get", FAR).stdout


@pytest.fixture
def trusting(uplinked6: Uplinked) -> Host:
    """A host as careless as a distribution makes it, and more."""
    host = uplinked6.host
    for name in ("all", "default"):
        host.set_sysctl(f"net.ipv4.conf.{name}.accept_redirects", 1)
        host.set_sysctl(f"net.ipv4.conf.{name}.accept_source_route", 1)
    accomplice(host)
    return host


def accomplice(host: Host) -> None:
    """Have a neighbour on the LAN, known to the host, where the guest would have packets go."""
    where = ("lladdr", "52:54:00:00:00:66", "dev", "eth0", "nud", "permanent")
    host.run("ip", "neighbour", "add", "203.0.113.66", *where)


def loosened(host: Host, bridge: str) -> None:
    """Do what udev does for every interface that comes, by Debian's 50-default.conf."""
    host.set_sysctl(f"net.ipv4.conf.{bridge}.rp_filter", 2)


@pytest.mark.parametrize("word", BRIDGES)
def test_a_guest_is_no_router_of_the_hosts(
    uplinked6: Uplinked, guest: Host, tmp_path: Path, word: str
) -> None:
    """Nor where somebody sets accept_ra for all, or removes the bridge's packet filter."""
    host, bridge = uplinked6.host, BRIDGES[word]
    with attacker(host, guest, tmp_path, word) as own:
        host.set_sysctl(f"net.ipv6.conf.{bridge}.accept_ra", 2)
        send(host, guest, own, *ADVERTISEMENTS.values())
        assert learned(host) == ""
        host.set_sysctl(f"net.ipv6.conf.{bridge}.accept_ra", 0)
        host.run("tc", "qdisc", "del", "dev", bridge, "clsact")
        send(host, guest, own, *ADVERTISEMENTS.values())
        assert learned(host) == ""


def test_on_a_bridge_of_the_users_own_it_is(
    uplinked6: Uplinked, guest: Host, watch: Watch, tmp_path: Path
) -> None:
    """That the attack is one; and what is the user's stays as it is."""
    host = uplinked6.host
    host.run("ip", "link", "add", "br9", "type", "bridge", "forward_delay", "0")
    host.run("ip", "link", "set", "br9", "up")
    host.set_sysctl("net.ipv4.conf.br9.rp_filter", 2)
    accomplice(host)
    before = settings(host, "br9")
    with attacker(host, guest, tmp_path, "tap,br=br9") as own:
        assert settings(host, "br9") == before
        send(host, guest, own, *ADVERTISEMENTS.values(), redirect(own))
        assert "dev br9" in learned(host)
        assert redirected(host)
    host.run("ip", "link", "del", "br9")
    watch.baseline(host)


def settings(host: Host, device: str) -> str:
    return host.run("sh", "-c", f"grep -s . /proc/sys/net/ipv?/conf/{device}/*", check=False).stdout


@pytest.mark.parametrize("word", BRIDGES)
def test_a_guest_does_not_turn_the_hosts_routes(
    trusting: Host, guest: Host, watch: Watch, tmp_path: Path, word: str
) -> None:
    """By the packet filter of the bridge where rp_filter is loose, by that where it is gone."""
    host, bridge = trusting, BRIDGES[word]
    watch.baseline(host)
    with attacker(host, guest, tmp_path, word) as own:
        redirects = (redirect(own), redirect(own, options=b"\1" * 4))
        host.run("tc", "qdisc", "del", "dev", bridge, "clsact")
        send(host, guest, own, *redirects)
        assert not redirected(host)
        host.run("tc", "qdisc", "add", "dev", bridge, "clsact")
    with attacker(host, guest, tmp_path, word) as own:
        host.run("nft", "flush", "ruleset")
        loosened(host, bridge)
        send(host, guest, own, *redirects)
        assert not redirected(host)


@pytest.mark.parametrize("flushed", [False, True], ids=["", "and all rules are flushed"])
def test_the_host_has_its_bridge_only_as_it_is_told(
    uplinked6: Uplinked, guest: Host, tmp_path: Path, *, flushed: bool
) -> None:
    """A plain bridge gives the host no address; a guest has nothing of it to speak to."""
    host = uplinked6.host
    with guest_of(host, guest, tmp_path, "tap,br=br7") as tap:
        wait_for(lambda: "LOWER_UP" in host.run("ip", "link", "show", "br7").stdout, "its carrier")
        if flushed:
            host.run("nft", "flush", "ruleset")
        assert not {"br7", tap} & set(host.proc_net("if_inet6").split())
        for key, value in (("accept_ra", "0"), ("accept_redirects", "0"), ("addr_gen_mode", "1")):
            assert host.sysctl(f"net.ipv6.conf.br7.{key}") == value


@pytest.fixture
def listening(uplinked6: Uplinked, tmp_path: Path) -> Iterator[Path]:
    """The file in which a service of the host's notes who speaks to it."""
    told = tmp_path / "heard"
    with told.open("w", encoding="utf-8") as file:
        service = uplinked6.host.popen(sys.executable, "-c", _LISTEN, stdout=file)
    wait_for(lambda: told.read_text("utf-8") != "", "the service")
    yield told
    service.kill()
    service.wait()


def heard(told: Path, number: int) -> list[str]:
    """Return whom the service has heard, once they are NUMBER."""
    wait_for(lambda: told.read_text("utf-8").count("\n") > number, "the service to hear")
    return told.read_text("utf-8").split()[1:]


@pytest.mark.parametrize("word", ["nat", "host-only"])
@pytest.mark.parametrize("by", ["rules", "the kernel alone"])
def test_a_guest_speaks_to_the_host_as_itself_alone(
    uplinked6: Uplinked, guest: Host, tmp_path: Path, listening: Path, word: str, by: str
) -> None:  # fmt: skip
    """A neighbour of the LAN, another's network, the internet, none, itself: the last is heard."""
    host = uplinked6.host
    with attacker(host, guest, tmp_path, word) as own:
        if by == "rules":
            loosened(host, BRIDGES[word])
        else:
            host.run("nft", "flush", "ruleset")
        sources = ("203.0.113.77", "8.8.8.8", "10.1.2.3", "127.0.0.1", "169.254.1.1")
        send(host, guest, own, *(ip4(17, s, own, udp(5000)) for s in sources))
        own_address = f"{own.rpartition('.')[0]}.9"
        send(host, guest, own, ip4(17, own_address, own, udp(5000)))
        assert heard(listening, 1) == [own_address]


@pytest.mark.parametrize("word", ["nat", "host-only"])
def test_by_ipv6_too(
    uplinked6: Uplinked, guest: Host, tmp_path: Path, listening: Path, word: str
) -> None:
    host = uplinked6.host
    with attacker(host, guest, tmp_path, word) as own:
        shown = host.run("ip", "-6", "address", "show", "dev", BRIDGES[word]).stdout
        gateway, local = re.findall(r"inet6 (\S+)/64", shown)
        mine = gateway.replace("::1", "::9")
        for source in ("2001:db8:113::77", "2001:db8:9::1", "fd00:9::1", "::"):
            send(host, guest, own, ip6(17, source, gateway, udp(5000)))
        send(host, guest, own, ip6(17, mine, gateway, udp(5000)))
        send(host, guest, own, ip6(17, "fe80::9", local, udp(5000)))
        assert heard(listening, 2) == [mine, "fe80::9"]


def test_what_guests_need_of_the_host_goes_on(
    uplinked6: Uplinked, guest: Host, tmp_path: Path
) -> None:
    """DHCP without an address, an address by the host's advertisement, the way out by both."""
    host = uplinked6.host
    with guest_of(host, guest, tmp_path, "nat"):
        guest.write("/run/got", "#!/bin/sh\n[ $1 != bound ] || echo $ip $router\n", mode=0o755)
        ask = ("busybox", "udhcpc", *"-f -q -n -t 30 -T 1 -i eth0 -s /run/got".split())
        address, router = guest.run(*ask).stdout.split()[-2:]
        guest.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        guest.run("ip", "route", "add", "default", "via", router)
        assert reached(guest, router, FAR) == {router, FAR}

        def is_routed() -> bool:
            shown = guest.run("ip", "-6", "address", "show", "dev", "eth0", "scope", "global")
            return "inet6" in shown.stdout and "tentative" not in shown.stdout

        wait_for(is_routed, "an address by advertisement")
        assert "default via fe80:" in guest.run("ip", "-6", "route").stdout
        assert reached(guest, "2001:db8:80::80") == {"2001:db8:80::80"}


@pytest.mark.parametrize("word", ["nat", "tap,br=br7"])
@pytest.mark.parametrize("router", [False, True], ids=["a host", "a router"])
def test_a_tap_has_no_part_in_the_guests_ipv6(
    uplinked6: Uplinked, guest: Host, watch: Watch, tmp_path: Path, word: str, *, router: bool
) -> None:
    """No address, and no group but that of all, which nobody reports: nothing to say to it."""
    host = uplinked6.host
    host.set_sysctl("net.ipv6.conf.all.forwarding", int(router))
    watch.baseline(host)
    with guest_of(host, guest, tmp_path, word) as tap:
        assert joined(host, tap) <= EVERYBODY
        assert tap not in host.proc_net("if_inet6")


@pytest.mark.parametrize("router", [False, True], ids=["a host", "a router"])
def test_nor_has_a_tap_that_qemu_made(uplinked6: Uplinked, watch: Watch, *, router: bool) -> None:
    host = uplinked6.host
    host.set_sysctl("net.ipv6.conf.all.forwarding", int(router))
    watch.baseline(host)
    env = {"QEMU_NETWRAP_NETWORK": "nat"}
    qemu = hooked.start(host, "-nic", f"tap,ifname=tap7,{hooked.SCRIPTS}", env=env)
    assert hooked.links(host)["tap7"]["master"] == "qn-nat"
    assert joined(host, "tap7") <= EVERYBODY
    assert "tap7" not in host.proc_net("if_inet6")
    hooked.end(qemu, signal.SIGTERM)
    netwrap(host, "wait", check=True)


def test_a_tap_that_stays_has_its_addresses_again(uplinked6: Uplinked, watch: Watch) -> None:
    host = uplinked6.host
    host.run("ip", "tuntap", "add", "mine0", "mode", "tap")
    for state in ("up", "down"):  # its qdisc comes with the first time
        host.run("ip", "link", "set", "mine0", state)
    watch.baseline(host)
    mode = "net.ipv6.conf.mine0.addr_gen_mode"
    before = host.sysctl(mode)
    host.run(COMMAND, "ifup", "mine0", env={"QEMU_NETWRAP_NETWORK": "nat"})
    assert host.sysctl(mode) == "1"
    netwrap(host, "ifdown", "mine0", check=True)
    assert host.sysctl(mode) == before


def test_a_bridge_that_was_made_is_told_from_one_that_was_there(host: Host) -> None:
    """A line says that nothing of the host is in it."""
    for word, said in (
        ("bridge,br=br7", "on br7 (made, a segment of its own), MAC"),
        ("bridge,br=br9", "on br9, MAC"),
    ):
        if "br9" in word:
            host.run("ip", "link", "add", "br9", "type", "bridge")
        done = netwrap(host, "-v", "--", "/bin/true", "-nic", word, check=True)
        assert said in done.stderr
        netwrap(host, "wait", check=True)
    host.run("ip", "link", "del", "br9")


def joined(host: Host, device: str) -> set[str]:
    """Return the multicast groups that an interface is in."""
    rows = (line.split() for line in host.proc_net("igmp6").splitlines())
    return {row[2] for row in rows if row[1] == device}


def test_a_host_without_ipv6(uplinked: Uplinked, watch: Watch, tmp_path: Path) -> None:
    host = uplinked.host
    host.set_sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    watch.baseline(host)
    for word in BRIDGES:
        with Host("guest") as guest, attacker(host, guest, tmp_path, word) as own:
            send(host, guest, own, advertisement())
            assert learned(host) == ""
