"""mac_filter on a simulated machine: frames that a guest's own tools would not send."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from contract.acting import Actor
from lab.netns import Host, link, wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap
from qemu_netwrap.resources.port_filters import MacFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN: Final = "52:54:00:00:00:77"
NEIGHBOUR: Final = "52:54:00:00:00:88"
OTHERS: Final = "52:54:00:00:00:99"
EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"
LINK_LOCAL: Final = "01:80:c2:00:00:0e"
# Send a frame from MAC to MAC, of an experimental type (RFC 5342).
_SEND: Final = """
import socket, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
source, target = (bytes.fromhex(mac.replace(":", "")) for mac in sys.argv[1:])
out.send(target + source + bytes.fromhex("88b5") + bytes(46))
"""


@pytest.fixture
def port(host: Host) -> Iterator[Host]:
    """A machine on port0 of the bridge qn-x, in the place of a guest; port1 is its neighbour's."""
    host.run("ip", "link", "add", "qn-x", "type", "bridge")
    host.run("ip", "link", "set", "qn-x", "up")
    with Host("guest") as guest, Host("neighbour") as neighbour:
        for number, (machine, mac) in enumerate(((guest, OWN), (neighbour, NEIGHBOUR))):
            link(host, f"port{number}", machine, "eth0")
            host.run("ip", "link", "set", f"port{number}", "master", "qn-x")
            machine.run("ip", "link", "set", "eth0", "address", mac)
        yield guest
        for name in ("port0", "port1", "qn-x"):
            host.run("ip", "link", "del", name)


def send(guest: Host, source: str, target: str) -> None:
    guest.run(sys.executable, "-c", _SEND, source, target)


def known(host: Host, mac: str) -> str:
    """What the bridge knows of a MAC."""
    lines = host.run("bridge", "fdb", "show", "br", "qn-x").stdout.splitlines()
    return "\n".join(line for line in lines if line.startswith(mac))


@contextlib.contextmanager
def filtered(host: Host) -> Iterator[None]:
    """Have port0 take frames from OWN alone."""
    with Actor(host) as actor:
        assert actor.acquire("run/77", MacFilter("port0", OWN))["errors"] == []
        yield
        assert actor.release("run/77")["errors"] == []


@pytest.mark.parametrize("target", [EVERYBODY, LINK_LOCAL])
def test_nothing_is_learnt_of_a_false_source(host: Host, port: Host, target: str) -> None:
    """Not by frames either that bridges take up before they look at the port's lock."""
    send(port, OTHERS, target)
    wait_for(lambda: "dev port0" in known(host, OTHERS), "the bridge to learn")
    with filtered(host):
        mac = "52:54:00:00:00:9a"
        send(port, mac, target)
        send(port, NEIGHBOUR, target)
        send(port, OWN, target)
        assert known(host, mac) == ""
        assert "dev port0" not in known(host, NEIGHBOUR)
        assert "dev port0" in known(host, OWN)


@pytest.mark.usefixtures("port")
def test_the_own_mac_stays_where_it_is(host: Host) -> None:
    """A port without a filter, somebody else's, does not take it over."""
    for command in (
        "link add false0 type veth peer name false1",
        "link set false0 master qn-x up",
        "link set false1 up",
    ):
        host.run("ip", *command.split())
    wait_for(lambda: "disabled" not in host.run("bridge", "link").stdout, "the port")
    with filtered(host):
        for _ in range(3):
            host.run(sys.executable, "-c", _SEND.replace("eth0", "false1"), OWN, EVERYBODY)
        assert "dev port0" in known(host, OWN)
    for _ in range(3):
        host.run(sys.executable, "-c", _SEND.replace("eth0", "false1"), OTHERS, EVERYBODY)
    wait_for(lambda: "dev false0" in known(host, OTHERS), "the bridge to learn")
    host.run("ip", "link", "del", "false0")


def test_a_bridge_that_is_made_anew(host: Host) -> None:
    """The taps that are plugged in again have their filter again."""
    words = (COMMAND, "--", QEMU, *IDLE, "-nic", f"host-only,mac={OWN}")
    qemu = host.popen(*words, stderr=subprocess.DEVNULL)
    tap = f"qn{qemu.pid}-0"
    try:
        wait_for(lambda: tap in netwrap(host, "ps").stdout, "the run")
        for _ in range(2):
            assert "locked on" in host.run("bridge", "-d", "link", "show", "dev", tap).stdout
            assert f"{OWN} " in host.run("bridge", "fdb", "show", "dev", tap).stdout
            host.run("ip", "link", "del", "qn-host-only")
            netwrap(host, "--", "true", "-nic", "host-only", check=True)
            netwrap(host, "gc", check=True)
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(host, "wait", check=True)
