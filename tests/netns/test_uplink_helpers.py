"""The way out of a user's network namespace, by pasta, old and recent, and by slirp4netns."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from lab import passts
from lab.netns import GATEWAY, UPLINK_ADDRESS, WEB_ADDRESS, WEB_BODY, WEB_NAME, Host, wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap
from qemu_netwrap.linux import uplink_helpers
from qemu_netwrap.linux.uplink_helpers import DEVICE, PASTA, SLIRP, UplinkHelper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.netns import Uplinked
    from lab.user import User

OLD, RECENT = f"old {PASTA}", f"recent {PASTA}"
PASTAS: Final = [f"{kind} {PASTA}" for kind in passts.kinds()]
WEB: Final = f"http://{WEB_NAME}/"
ALL: Final = pytest.mark.parametrize("name", [*PASTAS, SLIRP])

# What keeps the namespace: a router, as the network's namespace is one.
KEEPER: Final = r"""
set -eu
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo made
exec sleep 600
"""

# Starts a helper for the namespaces of the process PID, from outside of them.
AGENT: Final = """
import sys
from qemu_netwrap.linux import namespaces, polling, way_out
file, name, pid = sys.argv[1:]
way_out.start(file, namespaces.of_process(pid), name)
polling.wait_until(lambda: way_out.read(file) is not None, 60)
print(way_out.read(file).process.pid)
"""
WHY: Final = "import sys; from qemu_netwrap.linux import way_out; print(way_out.why(sys.argv[1]))"

# By TCP it answers once the client has sent all, and then sends much; by UDP it answers at once.
SERVER: Final = """
import os, socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 7000))
listening = socket.create_server(("", 7000))
if os.fork() == 0:
    while True:
        udp.sendto(*udp.recvfrom(9000))
while True:
    accepted, _ = listening.accept()
    while accepted.recv(65536):
        pass
    accepted.sendall(bytes(32 << 20))
    accepted.close()
"""
UDP_CLIENT: Final = f"""
import socket
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(60)
asking.sendto(b"ping", ("{GATEWAY}", 7000))  # what answers from another address is no answer
print(asking.recv(9000).decode())
"""
HALF_CLOSED: Final = f"""
import socket
connected = socket.create_connection(("{WEB_ADDRESS}", 7000), 20)
connected.sendall(b"that is all")
connected.shutdown(socket.SHUT_WR)
print(sum(map(len, iter(lambda: connected.recv(1 << 20), b""))))
"""


class Namespace:
    """A network namespace of a user's, and what runs in it."""

    def __init__(self, user: User) -> None:
        """Make the namespace."""
        self.user = user
        words = ("unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", KEEPER)
        self.keeper = user.popen(*words, stdout=subprocess.PIPE)
        assert self.keeper.stdout
        assert self.keeper.stdout.readline() == "made\n"

    def run(self, *cmd: str) -> str:
        """Run a command inside; return what it prints, whatever its status."""
        join = ("nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self.keeper.pid))
        return self.user.run(*join, "--", *cmd, check=False).stdout

    def end(self) -> None:
        """End the process that keeps the namespace."""
        self.keeper.kill()
        self.keeper.wait(10)

    def get(self, address: str, port: int = 80) -> str:
        """Return the page of a web server, empty if it cannot be had."""
        return self.run("curl", "-s", "-m", "5", f"http://{address}:{port}/")

    def default(self) -> str:
        """Return the default route, empty without one."""
        return self.run("ip", "route", "show", "default")

    def address(self) -> str:
        """Return the IPv4 addresses of the device that leads out, empty without any."""
        return self.run("ip", "-4", "-o", "address", "show", "dev", DEVICE)

    def resolve(self, server: str) -> str:
        """Return what a name server says about WEB_NAME."""
        return self.run("busybox", "nslookup", "-type=a", WEB_NAME, server)


class WayOut:
    """A helper that was started."""

    def __init__(self, inside: Namespace, name: str, path: str) -> None:
        """Start it, as it is found on PATH."""
        self.user, self.file = inside.user, f"{inside.user.runtime_folder}/way-out"
        words = (sys.executable, "-c", AGENT, self.file, name, str(inside.keeper.pid))
        self.pid = int(inside.user.run(*words, env={"PATH": path}).stdout)

    def is_over(self) -> bool:
        """Whether it has ended."""
        return not Path(f"/proc/{self.pid}").exists()

    def why(self) -> str:
        """Return what the user is told of its end."""
        return self.user.run(sys.executable, "-c", WHY, self.file).stdout

    def end(self) -> None:
        """End it, and remove its files."""
        if not self.is_over():
            os.kill(self.pid, signal.SIGTERM)
        wait_for(self.is_over, "its end")
        self.user.run("rm", "-f", self.file, f"{self.file}.log")


@contextlib.contextmanager
def connected(
    user: User, name: str, until: Callable[[Namespace], str] = Namespace.default
) -> Iterator[tuple[Namespace, WayOut]]:
    """Yield a user's namespace that a helper connects; afterwards both are gone.

    It is there as soon as UNTIL gives something, or the helper has ended.
    """
    kind, _, program = name.rpartition(" ")
    inside = Namespace(user)
    try:
        with passts.on_path(user.host, kind or "old", user.env["PATH"]) as path:
            way = WayOut(inside, program, path)
            try:
                wait_for(lambda: bool(until(inside)) or way.is_over(), name)
                yield inside, way
            finally:
                way.end()
    finally:
        inside.end()


@pytest.fixture
def user(uplinked: Uplinked, user: User) -> User:
    """Return alice, on whose internet there is one more server."""
    uplinked.net.popen(sys.executable, "-c", SERVER)
    uplinked.net.wait_listening("tcp", 7000)
    return user


def dns(name: str) -> str:
    return uplink_helpers.dns_address(UplinkHelper(name.rpartition(" ")[2], ""))


@ALL
def test_carries(user: User, name: str) -> None:
    """From the moment it is ready: TCP, UDP and the user's resolver; SIGTERM ends it."""
    with connected(user, name) as (inside, way):
        assert inside.get(WEB_ADDRESS) == WEB_BODY
        assert inside.run(sys.executable, "-c", UDP_CLIENT) == "ping\n"
        assert WEB_ADDRESS in inside.resolve(dns(name))
        assert f" {DEVICE} " in inside.default()
        assert " mtu 65520 " in inside.run("ip", "link", "show", "dev", DEVICE)
        os.kill(way.pid, signal.SIGTERM)
        wait_for(way.is_over, "its end")


@ALL
def test_carries_ipv6(user6: User, name: str) -> None:
    """slirp4netns some seconds later, by an advertisement that a router must be told to heed."""
    with connected(user6, name) as (inside, _):
        setting = f"/proc/sys/net/ipv6/conf/{DEVICE}/accept_ra"
        inside.run("sh", "-c", f"echo 2 >{setting}")
        wait_for(lambda: inside.get("[2001:db8:80::80]") == WEB_BODY, "IPv6")


@ALL
def test_loopback_resolver(user: User, name: str) -> None:
    """A resolver at 127.0.0.53 of the host answers inside, and nothing else there does."""
    host = user.host
    with served(host):
        host.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
        with connected(user, name) as (inside, _):
            assert "198.51.100.53" in inside.resolve(dns(name))
            gateway = inside.default().split()[2]
            for address in (gateway, dns(name), "127.0.0.1", "127.0.0.53"):
                assert not inside.get(address, 8080)
            assert host.run("curl", "-s", "http://127.0.0.1:8080/").stdout == WEB_BODY


@contextlib.contextmanager
def served(host: Host) -> Iterator[None]:
    """Have a name server and a web server at the host's loopback addresses."""
    host.write("/run/own/index.html", WEB_BODY)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    web = host.popen("busybox", "httpd", "-f", "-p", "8080", "-h", "/run/own", **quiet)
    names = host.popen(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
        *("--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.53"),
        f"--host-record={WEB_NAME},198.51.100.53",
        **quiet,
    )
    try:
        host.wait_listening("udp", 53)
        wait_for(lambda: any(host.listening(tcp, 8080) for tcp in ("tcp", "tcp6")), "the server")
        yield
    finally:
        for each in (web, names):
            each.kill()
            each.wait()


@ALL
def test_no_port_is_taken(user: User, name: str) -> None:
    """What listens inside is not reached from outside, by an address or by localhost."""
    with connected(user, name) as (inside, _):
        join = ("nsenter", "--preserve-credentials", "-U", "-n", "-t", str(inside.keeper.pid))
        server = user.popen(*join, "busybox", "httpd", "-f", "-p", "8081", "-h", "/etc")
        wait_for(lambda: ":8081" in inside.run("ss", "-ltn"), "the server inside")
        for address in ("127.0.0.1", UPLINK_ADDRESS):
            assert user.run("curl", "-s", f"http://{address}:8081/", check=False).returncode == 7
        server.kill()
        server.wait()


@pytest.mark.parametrize("name", ["auto", SLIRP, RECENT])
def test_half_closed(user: User, name: str) -> None:
    """A client that has said all receives what it is sent: by the helper that is chosen.

    Debian 12's pasta does not carry it within 40 seconds, slirp4netns does in 0.1.
    """
    with connected(user, name) as (inside, _):
        assert inside.run("timeout", "20", sys.executable, "-c", HALF_CLOSED) == f"{32 << 20}\n"


def test_no_default_route(user: User) -> None:
    """slirp4netns waits for one."""
    user.host.run("ip", "route", "del", "default")
    with connected(user, SLIRP) as (inside, _):
        assert not inside.get(WEB_ADDRESS)
        user.host.run("ip", "route", "add", "default", "via", GATEWAY)
        assert inside.get(WEB_ADDRESS) == WEB_BODY


@pytest.mark.parametrize("name", PASTAS)
def test_no_default_route_for_pasta(user: User, name: str) -> None:
    """An old one does not start, and the user is told why; a recent one has none to give."""
    user.host.run("ip", "route", "del", "default")
    with connected(user, name, Namespace.address) as (inside, way):
        if name == OLD:
            assert way.is_over()
            assert "the host has no default route" in way.why()
            assert "apt install slirp4netns" in way.why()
        else:
            assert not way.is_over()
            assert UPLINK_ADDRESS in inside.address()
            assert not inside.default()
    user.host.run("ip", "route", "add", "default", "via", GATEWAY)


@ALL
def test_stays(user: User, name: str) -> None:
    """The process by which it was told the namespace ends, and it goes on.

    A pasta that looks for that process does so each second.
    """
    with connected(user, name) as (inside, way):
        time.sleep(2.5)
        assert not way.is_over()
        assert inside.get(WEB_ADDRESS) == WEB_BODY


@ALL
def test_uplink_returns(user: User, name: str) -> None:
    """What was connected goes on after the host's uplink was away."""
    with connected(user, name) as (inside, _):
        user.host.sh("ip link set eth0 down")
        assert not inside.get(WEB_ADDRESS)
        user.host.sh(f"ip link set eth0 up; ip route replace default via {GATEWAY} dev eth0")
        wait_for(lambda: inside.get(WEB_ADDRESS) == WEB_BODY, "the uplink")


@pytest.mark.parametrize("kind", passts.kinds())
def test_a_pasta_leads_a_run_out(user: User, kind: str) -> None:
    """The configuration names it; it lives as long as the run, and leaves nothing."""
    settings = ".config/qemu-netwrap/config.toml"
    user.write(settings, f'uplink_helper = "{PASTA}"\n')
    with passts.on_path(user.host, kind, user.env["PATH"]) as path:
        words = (COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "nat")
        qemu = user.popen(*words, env={"PATH": path})
        wait_for(lambda: leads(user) or qemu.poll() is not None, "the network")
        time.sleep(2.5)  # see test_stays
        assert leads(user)
        assert netwrap(user, "exec", "nat", "--", "curl", "-s", WEB).stdout == WEB_BODY
        qemu.kill()
        qemu.wait(60)
        netwrap(user, "wait", check=True)
        wait_for(lambda: not user.processes(), "their end")


def leads(user: User) -> bool:
    """Whether pasta leads a network of the user's out, of which there is no fault."""
    networks = json.loads(netwrap(user, "ps", "--json", check=True).stdout)["networks"]
    return [(each["way_out"], each["faults"]) for each in networks] == [(PASTA, [])]
