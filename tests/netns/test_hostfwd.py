"""hostfwd on a simulated machine: UDP too, ports that are taken, and what a flush leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from lab.leaks import snapshot
from lab.netns import UPLINK_ADDRESS, Host, internet, link, wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap
from qemu_netwrap.networks import port_forwards
from qemu_netwrap.qemu.hostfwd import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Uplinked

CONFIG: Final = '[networks.nat]\nmode = "nat"\nsubnet = "10.50.0.0/24"\n'
GUEST: Final = "10.50.0.77"
NETDEV: Final = f"nat,id=n0,hostfwd=tcp::2222-{GUEST}:22,hostfwd=udp::2222-{GUEST}:22"
# Listen on a port of both kinds; who asks is told where he seems to be.
_SERVE: Final = """
import select, socket, sys
tcp = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 22))
while True:
    for ready in select.select([tcp, udp], [], [])[0]:
        if ready is tcp:
            connection, address = tcp.accept()
            connection.sendall(address[0].removeprefix("::ffff:").encode())
            connection.close()
        else:
            _, address = udp.recvfrom(100)
            udp.sendto(address[0].removeprefix("::ffff:").encode(), address)
"""
# Ask ADDRESS by PROTOCOL; print what it answers.
_ASK: Final = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
asking = socket.socket(family, kind)
asking.settimeout(5)
try:
    asking.connect((sys.argv[2], int(sys.argv[3])))
    asking.send(b"?")
    print(asking.recv(100).decode(), end="")
except OSError as error:
    print("nobody", end="")
"""
_LISTEN: Final = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
taken = socket.socket(family, kind)
taken.bind((sys.argv[2], int(sys.argv[3])))
if sys.argv[1] == "tcp":
    taken.listen()
print("ready", flush=True)
sys.stdin.read()
"""


def asked(host: Host, protocol: str, address: str, port: int = 2222) -> str:
    """What answers there; `nobody` if nobody does."""
    return host.run(sys.executable, "-c", _ASK, protocol, address, str(port)).stdout


@contextlib.contextmanager
def idle(host: Host, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a QEMU without a guest until its network is there, and to the end."""
    qemu = host.popen(COMMAND, "--", QEMU, *IDLE, *words, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: f"qn{qemu.pid}-0" in netwrap(host, "ps").stdout, "the run")
        yield qemu
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(host, "wait", check=True)


@contextlib.contextmanager
def server(host: Host) -> Iterator[Host]:
    """Plug a machine that serves into the network, where the guest is thought to be."""
    with Host("guest") as guest:
        link(host, "port0", guest, "eth0")
        host.run("ip", "link", "set", "port0", "master", "qn-nat")
        guest.run("ip", "address", "add", f"{GUEST}/24", "dev", "eth0")
        guest.run("ip", "route", "add", "default", "via", "10.50.0.1")
        guest.popen(sys.executable, "-c", _SERVE)
        guest.wait_listening("udp6", 22)
        try:
            yield guest
        finally:
            host.run("ip", "link", "del", "port0")


@contextlib.contextmanager
def listener(host: Host, protocol: str, address: str, port: int = 2222) -> Iterator[int]:
    """Have somebody listen on a port; yield his process id."""
    words = (sys.executable, "-c", _LISTEN, protocol, address, str(port))
    pipe = subprocess.PIPE
    listening = host.popen(*words, stdin=pipe, stdout=pipe)
    assert listening.stdout is not None
    assert listening.stdout.readline() == "ready\n"
    try:
        yield listening.pid
    finally:
        listening.kill()
        listening.wait()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_from_everywhere(uplinked: Uplinked, protocol: str) -> None:
    host, net = uplinked.host, uplinked.net
    host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    with idle(host, "-netdev", NETDEV), server(host):
        seen = {
            address: asked(host, protocol, address)
            for address in ("127.0.0.1", "127.1.2.3", UPLINK_ADDRESS, "10.50.0.1", "localhost")
        }
        assert seen == {
            "127.0.0.1": "10.50.0.1",
            "127.1.2.3": "10.50.0.1",
            "localhost": "10.50.0.1",
            UPLINK_ADDRESS: UPLINK_ADDRESS,
            "10.50.0.1": "10.50.0.1",
        }
        # The guest is told who it is, as it is with a server on the host.
        assert asked(net, protocol, UPLINK_ADDRESS) == "203.0.113.1"
        assert asked(host, protocol, GUEST, 22) == "10.50.0.1"


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_the_chains_lead_ipv6_too(bridged: str) -> None:
    """For networks that have it; they have not yet."""
    forwards = [parse(f"{protocol}::2222-[fd00:9::5]:22") for protocol in ("tcp", "udp")]
    chains = port_forwards.rules("port0", "br0", ("fd00:9::1/64",), forwards)
    with internet(ipv6=True) as both, Host("guest") as guest, Host("neighbour") as neighbour:
        host, net = both.host, both.net
        host.set_sysctl("net.ipv6.conf.all.forwarding", 1)
        host.run("sysctl", "-eqw", f"net.bridge.bridge-nf-call-ip6tables={bridged}")
        host.run("ip", "-batch", "-", input="link add br0 type bridge\nlink set br0 up\n")
        host.run("ip", "address", "add", "fd00:9::1/64", "dev", "br0", "nodad")
        for number, (machine, last) in enumerate(((guest, "5"), (neighbour, "6"))):
            link(host, f"port{number}", machine, "eth0")
            host.run("ip", "link", "set", f"port{number}", "master", "br0")
            machine.run(*f"ip address add fd00:9::{last}/64 dev eth0 nodad".split())
            machine.run(*"ip route add default via fd00:9::1".split())
        host.run("nft", "-f", "-", input=f"table inet qemu_netwrap {{\n{chains}}}\n")
        guest.popen(sys.executable, "-c", _SERVE)
        guest.wait_listening("udp6", 22)
        uplink, gateway = "2001:db8:113::2", "fd00:9::1"
        for protocol in ("tcp", "udp"):
            assert asked(host, protocol, "::1") == gateway
            assert asked(host, protocol, uplink) == uplink
            assert asked(net, protocol, uplink) == "2001:db8:113::1"
            for address in (uplink, gateway):
                assert asked(neighbour, protocol, address) == gateway


def test_the_hosts_loopback_is_closed_to_guests(uplinked: Uplinked) -> None:
    """Also when all rules are gone; the next run that joins brings ours back."""
    host = uplinked.host
    host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    with (
        idle(host, "-netdev", NETDEV),
        server(host) as guest,
        listener(host, "tcp", "127.0.0.1", 99),
    ):
        gateway = host.read("/sys/class/net/qn-nat/address").strip()
        guest.run("ip", "link", "set", "lo", "down")
        guest.run("ip", "rule", "add", "pref", "1", "to", "127.0.0.0/8", "lookup", "7")
        guest.run("ip", "rule", "del", "pref", "0")
        guest.run("ip", "rule", "add", "pref", "2", "lookup", "local")
        guest.set_sysctl("net.ipv4.conf.eth0.route_localnet", 1)
        guest.run(*f"ip route add 127.0.0.0/8 via 10.50.0.1 dev eth0 table 7 src {GUEST}".split())
        guest.run(*f"ip neighbour replace 10.50.0.1 lladdr {gateway} dev eth0".split())
        assert asked(guest, "tcp", "127.0.0.1", 99) == "nobody"
        host.run("nft", "flush", "ruleset")
        assert asked(guest, "tcp", "127.0.0.1", 99) == "nobody"
        netwrap(host, "--", "true", "-nic", "nat", check=True)
        assert asked(host, "tcp", "127.0.0.1") == "10.50.0.1"


@pytest.mark.parametrize(
    ("protocol", "address"),
    [("tcp", "0.0.0.0"), ("tcp", "127.0.0.1"), ("tcp", "::"), ("udp", "0.0.0.0"), ("udp", "::")],  # noqa: S104
)
def test_taken_by_another_program(host: Host, protocol: str, address: str) -> None:
    words = ("-nic", f"nat,hostfwd={protocol}::2222-:22")
    with listener(host, protocol, address) as pid:
        before = snapshot(host)
        for command in ("--", "plan"):
            done = netwrap(host, command, QEMU, *words)
            told = f"{protocol} port 2222 of the host is taken by python3 (pid {pid})"
            assert (done.returncode, told in done.stderr) == (125, True), done.stderr
        assert snapshot(host) == before
        netwrap(host, "--", "true", "-nic", "nat,hostfwd=tcp::2223-:22", check=True)
        other = "udp" if protocol == "tcp" else "tcp"
        netwrap(host, "--", "true", "-nic", f"nat,hostfwd={other}::2222-:22", check=True)
        netwrap(host, "wait", check=True)


def test_taken_by_another_run(host: Host) -> None:
    host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    with idle(
        host, "-name", "web", "-netdev", f"nat,id=n0,hostfwd=:127.0.0.1:2222-{GUEST}:22"
    ) as q:
        done = netwrap(host, "--", "true", "-nic", "nat,hostfwd=tcp::2222-:22")
        assert done.returncode == 125
        assert f"tcp port 2222 of the host is taken by run {q.pid} (web)" in done.stderr
        assert f"qemu-netwrap stop {q.pid}" in done.stderr
    netwrap(host, "--", "true", "-nic", "nat,hostfwd=tcp::2222-:22", check=True)
    netwrap(host, "wait", check=True)


def test_a_port_is_held_while_qemu_lives(host: Host) -> None:
    """Also when the keeper is dead. Who looks for its holder finds QEMU, as with slirp."""
    host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    bind = "import socket as s; s.socket(s.AF_INET, s.{}).bind(('', 2222))"
    kinds = [bind.format(kind) for kind in ("SOCK_STREAM", "SOCK_DGRAM")]
    with idle(host, "-netdev", NETDEV) as qemu:
        (keeper,) = (pid for pid, words in host.processes().items() if "waiter.py" in words)
        os.kill(keeper, signal.SIGKILL)
        for kind in kinds:
            told = host.run(sys.executable, "-c", kind, check=False).stderr
            assert "Address already in use" in told
        for letter in "tu":
            shown = host.run("ss", f"-Hl{letter}np", "sport = :2222").stdout.splitlines()
            assert [f"pid={qemu.pid}," in line for line in shown] == [True]
    for kind in kinds:
        host.run(sys.executable, "-c", kind)


@pytest.mark.parametrize("name", ["1st", 'a"b', "é", "a+{b}", "tap.0"])
def test_a_tap_of_any_name(host: Host, name: str) -> None:
    words = ("-nic", f"nat,ifname={name},hostfwd=tcp::2222-:22")
    netwrap(host, "--", "true", *words, check=True)
    netwrap(host, "wait", check=True)


def test_an_address_that_is_not_the_hosts(host: Host) -> None:
    done = netwrap(host, "--", "true", "-nic", "nat,hostfwd=tcp:192.0.2.9:2222-:22")
    assert (done.returncode, "192.0.2.9 is no address of this host" in done.stderr) == (125, True)


def test_a_guest_elsewhere(host: Host) -> None:
    done = netwrap(host, "--", "true", "-nic", "nat,hostfwd=tcp::2222-10.0.2.15:22")
    assert (done.returncode, "10.0.2.15 is none of " in done.stderr) == (125, True), done.stderr
