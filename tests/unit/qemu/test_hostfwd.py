"""hostfwd=: read as QEMU's user network reads it, and the chains that come of it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import polling
from qemu_netwrap.model.network import Config, Network
from qemu_netwrap.model.run import PortForward, TapRequest
from qemu_netwrap.networks import port_forwards
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.qemu.hostfwd import parse
from qemu_netwrap.runtime import launcher, plan
from qemu_netwrap.runtime.host_ports import hold
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from pathlib import Path

FOUR = st.ip_addresses(v=4).map(str)
SIX = st.ip_addresses(v=6).map(str)
PORTS = st.integers(1, 65535)
PROTOCOLS = st.sampled_from(["tcp", "udp"])


@pytest.mark.parametrize(
    "words",
    [
        ["-nic", "nat,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53"],
        [
            "-netdev",
            '{"type": "tap", "id": "n", "network": "nat", "hostfwd": [{"str": "::1-10.0.0.2:2"}]}',
        ],
    ],
)
def test_each_is_read_once_from_the_words_to_the_plan(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(text: str) -> PortForward:
        read.append(text)
        return parse(text)

    monkeypatch.setattr(hostfwd, "parse", counted)
    _, reading = launcher.read_line(("qemu", *words), "qemu", None, asks=False)
    assert reading is not None
    made = plan.make(reading, Config(), plan.Facts("1"))
    assert read == list(reading.nets[0].values("hostfwd"))
    assert made.nics[0].nic.forwards == tuple(map(parse, read)) != ()


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("tcp::2222-:22", PortForward("tcp", "", 2222, "", 22)),
        ("::2222-:22", PortForward("tcp", "", 2222, "", 22)),
        ("udp:127.0.0.1:53-10.0.2.15:0x35", PortForward("udp", "127.0.0.1", 53, "10.0.2.15", 53)),
        ("tcp:0.0.0.0:80-0.0.0.0:8080", PortForward("tcp", "", 80, "", 8080)),
        ("tcp:[::1]:80-:80", PortForward("tcp", "::1", 80, "", 80, is_ipv6=True)),
        ("tcp:[::]:80-:80", PortForward("tcp", "", 80, "", 80, is_ipv6=True)),
        ("tcp::80-[fd00:0::9]:80", PortForward("tcp", "", 80, "fd00::9", 80, is_ipv6=True)),
    ],
)
def test_read(text: str, forward: PortForward) -> None:
    assert parse(text) == forward
    assert parse(str(forward)) == forward


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "No : separators"),
        ("tcp", "No : separators"),
        ("icmp::1-:1", "Bad protocol name"),
        ("TCP::1-:1", "Bad protocol name"),
        ("tcp:", "Missing : separator"),
        ("tcp:1.2.3:22-:22", "Bad host address"),
        ("tcp:[::1:22-:22", "Bad host address"),
        ("tcp:[127.0.0.1]:22-:22", "Bad host address"),
        ("tcp:[::1]22-:22", "Missing : separator"),
        ("tcp::22", "Bad host port separator"),
        ("tcp::0-:22", "Bad host port"),
        ("tcp::65536-:22", "Bad host port"),
        ("tcp::-1-:22", "Bad host port"),
        ("tcp::x-:22", "Bad host port"),
        ("tcp::22-", "Missing guest address"),
        ("tcp::22-22", "Missing guest address"),
        ("tcp::22-x:22", "Bad guest address"),
        ("tcp::22-[fd00::x]:22", "Bad guest address"),
        ("tcp:127.0.0.1:22-[fd00::1]:22", "Bad guest address"),
        ("tcp:[::1]:22-10.0.0.1:22", "Bad guest address"),
        ("tcp::22-:", "Bad guest port"),
        ("tcp::22-:0", "Bad guest port"),
        ("tcp::22-:22 ", "Bad guest port"),
    ],
)
def test_refused_in_qemus_words(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="Invalid host forwarding rule") as caught:
        parse(text)
    assert str(caught.value) == f"Invalid host forwarding rule '{text}' ({wrong})"


@given(PROTOCOLS, st.one_of(st.tuples(FOUR, FOUR), st.tuples(SIX, SIX)), PORTS, PORTS)
def test_written_as_it_is_read(
    protocol: str, addresses: tuple[str, str], port: int, guest_port: int
) -> None:
    host, guest = (f"[{each}]" if ":" in each else each for each in addresses)
    forward = parse(f"{protocol}:{host}:{port}-{guest}:{guest_port}")
    assert (forward.protocol, forward.port, forward.guest_port) == (protocol, port, guest_port)
    assert parse(str(forward)) == forward


@given(st.text("tcpud:[]0123456789.-af ", max_size=24))
def test_any_text_is_one_or_is_refused(text: str) -> None:
    try:
        forward = parse(text)
    except ValueError:
        return
    assert parse(str(forward)) == forward


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("tcp::1-:1", "tcp::1-:2", True),
        ("tcp::1-:1", "tcp:127.0.0.1:1-:1", True),
        ("tcp:127.0.0.2:1-:1", "tcp:127.0.0.1:1-:1", False),
        ("tcp::1-:1", "udp::1-:1", False),
        ("tcp::1-:1", "tcp::2-:1", False),
        ("tcp::1-:1", "tcp:[::]:1-:1", False),
    ],
)
def test_two_for_one_port(one: str, other: str, meet: bool) -> None:
    assert parse(one).meets(parse(other)) is parse(other).meets(parse(one)) is meet


GATEWAYS = ("10.9.0.1/24", "fd00:9::1/64")
ALL = """\
chain t_prerouting {
  type nat hook prerouting priority dstnat; policy accept;
  meta nfproto ipv4 fib daddr type local tcp dport 2222 dnat ip to 10.9.0.5:22 comment "C"
}
chain t_output {
  type nat hook output priority -100; policy accept;
  meta nfproto ipv4 fib daddr type local tcp dport 2222 dnat ip to 10.9.0.5:22 comment "C"
}
chain t_postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  oifname "b" ip saddr 10.9.0.0/24 ip daddr 10.9.0.5 ct status dnat masquerade comment "C"
}
chain t_leaving {
  type filter hook output priority raw; policy accept;
  ip saddr 127.0.0.1 ip daddr 127.0.0.0/8 tcp dport 2222 ip saddr set 10.9.0.1 comment "C"
}
chain t_coming {
  type filter hook input priority 110; policy accept;
  iifname "b" ip saddr 127.0.0.0/8 ip daddr 10.9.0.1 tcp sport 2222 ip daddr set 127.0.0.1 \
comment "C"
}
"""


def chains(text: str) -> set[str]:
    """The hooks that there is a chain for."""
    found = port_forwards.rules("t", "b", GATEWAYS, [parse(text)])
    return {line.split()[1] for line in found.splitlines() if line.startswith("chain ")}


def test_rules() -> None:
    found = port_forwards.rules("t", "b", GATEWAYS, [parse("tcp::2222-10.9.0.5:22")])
    assert found == ALL.replace('"C"', '"qemu-netwrap: t"')


def test_rules_for_ipv6() -> None:
    found = port_forwards.rules("t", "b", GATEWAYS, [parse("tcp::2222-[fd00:9::5]:22")])
    expected = ALL.replace("ipv4", "ipv6").replace("ip saddr", "ip6 saddr")
    for four, six in (
        ("ip daddr", "ip6 daddr"),
        ("dnat ip to 10.9.0.5", "dnat ip6 to [fd00:9::5]"),
        ("10.9.0.5", "fd00:9::5"),
        ("10.9.0.0/24", "fd00:9::/64"),
        ("10.9.0.1", "fd00:9::1"),
        ("127.0.0.0/8", "::1"),
        ("127.0.0.1", "::1"),
    ):
        expected = expected.replace(four, six)
    assert found == expected.replace('"C"', '"qemu-netwrap: t"')


def test_no_more_chains_than_needed() -> None:
    outside = {"t_prerouting", "t_output", "t_postrouting"}
    loopback = {"t_output", "t_leaving", "t_coming"}
    assert chains("tcp:192.0.2.2:80-10.9.0.5:80") == outside
    assert chains("tcp:127.0.0.1:80-10.9.0.5:80") == loopback


def test_a_port_whose_holder_just_ends_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        forward = PortForward("tcp", "127.0.0.1", holder.getsockname()[1], "", 22)
        nic = TapRequest("nic", Network("nat", "nat", "qn-nat"), "tap", forwards=(forward,))
        with pytest.raises(HostError, match="is taken"):
            hold([nic], state)
        monkeypatch.setattr(polling, "_sleep", lambda _: holder.close())
        for fd in hold([nic], state):
            os.close(fd)
