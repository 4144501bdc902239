"""What is done to a living QEMU and its network from outside is left as it is, and ends cleanly."""

from __future__ import annotations

import json
import signal
import socket
import time
from typing import TYPE_CHECKING

from fidelity.running import end, links, start, state
from lab.netns import wait_for
from lab.tool import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from lab.netns import Host


def test_a_netdev_that_is_unplugged_by_qmp(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    net = ("-netdev", "nat,id=n0", "-netdev", "nat,id=n1")
    child = start(host, *net, "-qmp", f"unix:{path},server=on,wait=off")
    first, second = f"qn{child.pid}-0", f"qn{child.pid}-1"
    assert {first, second} <= links(host)
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(path))
        lines = monitor.makefile("rw", encoding="utf-8")
        lines.readline()
        for command, arguments in (("qmp_capabilities", {}), ("netdev_del", {"id": "n0"})):
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            assert json.loads(lines.readline()) == {"return": {}}
    wait_for(lambda: first not in links(host), "the tap to go")
    assert second in links(host)
    assert str(child.pid) in host.run(COMMAND, "ps").stdout
    assert end(host, child) == 0


def test_a_qemu_that_is_stopped_for_long_keeps_its_network(host: Host) -> None:
    child = start(host, "-nic", "nat")
    child.send_signal(signal.SIGSTOP)
    wait_for(lambda: state(child.pid) == "T", "QEMU to stop")
    assert host.run(COMMAND, "gc").stdout == "nothing was left\n"
    other = start(host, "-nic", "nat")
    other.terminate()
    assert other.wait(30) == 0
    host.run(COMMAND, "wait", str(other.pid))
    time.sleep(1)
    assert {"qn-nat", f"qn{child.pid}-0"} <= links(host)
    child.send_signal(signal.SIGCONT)
    assert end(host, child) == 0


def test_a_nic_that_somebody_moved_is_left_there_and_goes_with_qemu(host: Host) -> None:
    host.run("ip", "link", "add", "elsewhere", "type", "bridge")
    host.run("ip", "link", "set", "elsewhere", "up")
    child = start(host, "-nic", "nat")
    tap = f"qn{child.pid}-0"
    host.run("ip", "link", "set", tap, "master", "elsewhere")
    other = start(host, "-nic", "nat")
    host.run(COMMAND, "gc")
    ports = host.run("ip", "-br", "link", "show", "master", "elsewhere").stdout
    assert tap in ports
    other.terminate()
    other.wait(30)
    host.run(COMMAND, "wait", str(other.pid))
    assert tap in host.run("ip", "-br", "link", "show", "master", "elsewhere").stdout
    assert end(host, child) == 0
    assert links(host) == {"lo", "elsewhere"}
    host.run("ip", "link", "del", "elsewhere")


def test_a_nic_that_somebody_removed_or_renamed_is_no_trouble(host: Host) -> None:
    child = start(host, "-nic", "nat", "-nic", "host-only")
    host.run("ip", "link", "del", f"qn{child.pid}-0")
    host.run("ip", "link", "set", f"qn{child.pid}-1", "down")
    host.run("ip", "link", "set", f"qn{child.pid}-1", "name", "renamed")
    assert end(host, child, signal.SIGKILL) == -signal.SIGKILL
    assert links(host) == {"lo"}


def test_a_bridge_that_somebody_removed_comes_back_with_the_next_run(host: Host) -> None:
    host.run("ip", "link", "add", "elsewhere", "type", "bridge")
    one, moved = (start(host, "-nic", "nat") for _ in range(2))
    host.run("ip", "link", "set", f"qn{moved.pid}-0", "master", "elsewhere")
    assert "puts that right" not in host.run(COMMAND, "ps").stdout
    host.run("ip", "link", "del", "qn-nat")
    told = host.run(COMMAND, "ps").stdout.splitlines()
    assert "network nat: its bridge has been removed; the next run to join puts that right" in told
    done = host.popen(COMMAND, "--", "true", "-nic", "nat")  # any program will do for that
    assert done.wait(30) == 0
    host.run(COMMAND, "wait", str(done.pid))
    assert _ports(host, "qn-nat") == {f"qn{one.pid}-0"}
    assert _ports(host, "elsewhere") == {f"qn{moved.pid}-0"}
    host.run("ip", "link", "set", f"qn{one.pid}-0", "nomaster")
    told = host.run(COMMAND, "ps").stdout.splitlines()
    assert told[-1] == f"network nat: qn{one.pid}-0 has been unplugged"
    moved.terminate()
    assert moved.wait(30) == 0
    assert end(host, one) == 0
    assert links(host) == {"lo", "elsewhere"}
    host.run("ip", "link", "del", "elsewhere")


def test_rules_that_somebody_flushed_come_back_with_the_next_run(host: Host) -> None:
    child = start(host, "-nic", "nat")
    before = host.run("nft", "list", "ruleset").stdout
    host.run("nft", "flush", "ruleset")
    told = host.run(COMMAND, "ps").stdout.splitlines()
    assert "network nat: its nft rules have been removed; the next run to join puts that right" in (
        told
    )
    host.run(COMMAND, "--", "true", "-nic", "nat")
    assert host.run("nft", "list", "ruleset").stdout == before
    assert end(host, child) == 0
    assert not host.run("nft", "list", "ruleset").stdout


def _ports(host: Host, bridge: str) -> set[str]:
    """Return the ports of a bridge."""
    listed = json.loads(host.run("ip", "-j", "link", "show", "master", bridge).stdout)
    return {link["ifname"] for link in listed}
