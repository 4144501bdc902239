"""A launch: QEMU in the launcher's place, its network there while it lives and gone after it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fidelity.running import keeper_of
from lab.netns import wait_for
from lab.tool import unhurried

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host, Uplinked

NETWRAP = str(Path(sys.executable).with_name("qemu-netwrap"))
# No machine to emulate: the netdevs are all that counts here.
QEMU = ("qemu-system-x86_64", "-M", "none", "-accel", "tcg", "-display", "none")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
STATE = "/run/qemu-netwrap"


def start(host: Host, *net: str, name: str = "") -> subprocess.Popen[str]:
    """Start QEMU through the tool and return when its network is up."""
    words = (*QEMU, *(("-name", name) if name else ()), *net)
    child = host.popen(NETWRAP, "--", *words, **QUIET)
    wait_for(lambda: is_qemu(child.pid), "QEMU in the launcher's place")
    return child


def is_qemu(pid: int) -> bool:
    """Whether that process is QEMU by now, and has come as far as to mind its signals."""
    if Path(f"/proc/{pid}/exe").resolve().name != "qemu-system-x86_64":
        return False
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> signal.SIGTERM - 1 & 1)


def end(child: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """End QEMU and return its status."""
    child.send_signal(number)
    return child.wait(60)


def links(host: Host) -> set[str]:
    """Return the names of all interfaces."""
    return {link["ifname"] for link in json.loads(host.run("ip", "-j", "link").stdout)}


def ps(host: Host) -> dict[str, Any]:
    """Return what `ps --json` says."""
    found: dict[str, Any] = json.loads(host.run(NETWRAP, "ps", "--json").stdout)
    return found


def gone(host: Host) -> bool:
    """Whether nothing of ours is left."""
    return host.run("ls", STATE, check=False).returncode != 0 and links(host) <= {"lo", "eth0"}


@pytest.fixture
def running(uplinked: Uplinked) -> Iterator[tuple[Host, subprocess.Popen[str]]]:
    """A QEMU on the built-in NAT network; ended after the test if it has not been."""
    child = start(uplinked.host, "-nic", "nat", name="web")
    yield uplinked.host, child
    child.kill()
    child.wait(60)


def test_qemu_is_the_process_that_was_started(running: tuple[Host, subprocess.Popen[str]]) -> None:
    host, child = running
    assert is_qemu(child.pid)
    stat = Path(f"/proc/{child.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    assert int(stat[1]) == os.getpid()  # parent
    assert os.getpgid(child.pid) == os.getpgrp()
    assert os.getsid(child.pid) == os.getsid(0)
    assert f"qn{child.pid}-0" in links(host)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text("utf-8")
    assert not children.strip()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)]
)
def test_any_end_of_qemu_gives_its_status_and_takes_the_network_down(
    running: tuple[Host, subprocess.Popen[str]], number: int, status: int
) -> None:
    host, child = running
    assert end(child, number) == status
    host.run(NETWRAP, "wait")
    assert gone(host)
    assert not host.run("nft", "list", "ruleset").stdout


def test_a_programs_own_exit_status_is_ours(host: Host, tmp_path: Path) -> None:
    program = tmp_path / "qemu-seven"
    program.write_text("#!/bin/sh\nexit 7\n", "utf-8")
    program.chmod(0o755)
    assert host.run(NETWRAP, "--", str(program), "-nic", "nat", check=False).returncode == 7
    host.run(NETWRAP, "wait")
    assert gone(host)


@pytest.mark.parametrize(
    "words",
    [
        ("-nic", "user,hostfwd=tcp::2222-:22"),
        ("-m", "2G", "disk,,image.qcow2", "-name", "-nic"),
        ("-nic", "none"),
        ("-netdev", "socket,id=s,listen=:1234"),
        ("-netdev", "tap,id=n0,fd=9"),
        ("-nic", "tap,script=/etc/mine"),
        ("-netdev", "tap"),  # QEMU refuses it: no id
        ("-nic", "tap,nonsense=1"),
        ("-nope", "-nic", "nat"),
        ("-nic", "nat", "-version"),
        ("--help", "-nic", "nat"),
        ("-nic", "nat", "-append"),
    ],
)
def test_what_is_not_ours_reaches_qemu_to_the_byte(host: Host, words: tuple[str, ...]) -> None:
    printed = host.run(NETWRAP, "--", "/bin/echo", *words).stdout
    assert printed == host.run("/bin/echo", *words).stdout
    assert gone(host)


def test_the_double_dash_may_be_left_out(host: Host) -> None:
    assert host.run(NETWRAP, "/bin/echo", "-nic", "user", "--", "x").stdout == "-nic user -- x\n"


def test_the_new_words_differ_in_the_netdev_alone(
    running: tuple[Host, subprocess.Popen[str]],
) -> None:
    _, child = running
    words = Path(f"/proc/{child.pid}/cmdline").read_text("utf-8").split("\0")[:-1]
    assert words[:-1] == [*QEMU, "-name", "web", "-nic"]
    kind, fd, mac = words[-1].split(",")
    assert kind == "tap"
    assert mac.startswith("mac=52:54:00:")
    inherited = os.readlink(f"/proc/{child.pid}/fd/{fd.removeprefix('fd=')}")
    assert inherited == "/dev/net/tun"


def test_plan_tells_what_a_launch_does_and_changes_nothing(uplinked: Uplinked) -> None:
    host = uplinked.host
    net = ("-M", "pc", "-S", "-netdev", "nat,id=n0", "-device", "virtio-net,netdev=n0")
    words = (*QEMU, "-name", "web", *net)
    before = links(host)
    plan = json.loads(host.run(NETWRAP, "plan", "--json", "--", *words).stdout)
    assert links(host) == before
    assert host.run("ls", STATE, check=False).returncode != 0
    child = start(host, *net, name="web")
    argv = Path(f"/proc/{child.pid}/cmdline").read_text("utf-8").split("\0")[:-1]
    assert argv[-3].startswith("tap,id=n0,fd=")
    assert plan["argv"][-3] == "tap,id=n0,fd=<qnRUN-0>"
    assert plan["argv"][-1] == argv[-1]  # the same MAC
    (nic,) = plan["nics"]
    assert argv[-1].endswith(f"mac={nic['macs'][0]}")
    address = next(s["address"] for s in plan["steps"] if s["kind"] == "Address")
    assert ps(host)["networks"][0]["address"] == address
    # Each command of the plan describes what is there now.
    assert (
        json.loads(host.run(NETWRAP, "plan", "--json", "--", *words).stdout)["networks"][0][
            "action"
        ]
        == "joined"
    )
    end(child)


def test_plan_as_text_shows_commands_undo_and_words(host: Host) -> None:
    printed = host.run(NETWRAP, "plan", *QEMU, "-nic", "nat").stdout
    for part in (
        "ip link add qn-nat",
        "masquerade",
        "dnsmasq",
        "undo",
        "ip link del qn-nat",
        "fd=",
    ):
        assert part in printed


def test_the_subnet_is_the_same_each_time_and_free_of_every_route(uplinked: Uplinked) -> None:
    host = uplinked.host

    def planned() -> str:
        plan = json.loads(host.run(NETWRAP, "plan", "--json", *QEMU, "-nic", "nat").stdout)
        address: str = next(s["address"] for s in plan["steps"] if s["kind"] == "Address")
        return address

    first = planned()
    assert planned() == first
    prefix = first.rpartition(".")[0]
    for route in (f"{prefix}.128/25", f"{prefix.rpartition('.')[0]}.0.0/16"):
        # In a table of its own that no rule leads to: it counts all the same.
        host.run("ip", "route", "add", route, "via", "203.0.113.1", "table", "77")
        assert planned() != first
        host.run("ip", "route", "del", route, "table", "77")
    assert planned() == first


def test_the_resolver_behind_a_local_stub_is_found(uplinked: Uplinked) -> None:
    host = uplinked.host
    stub, real = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"
    words = (NETWRAP, "plan", *QEMU, "-nic", "nat")
    assert f"resolv-file={stub}\n" in host.run(*words).stdout
    host.write(stub, "nameserver 127.0.0.53\n")
    assert f"resolv-file={stub}\n" in host.run(*words).stdout  # nothing better is known
    host.write(real, "nameserver 203.0.113.1\n")
    assert f"resolv-file={real}\n" in host.run(*words).stdout


def test_only_the_devices_concerned_forward(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, "-nic", "nat")
    assert host.sysctl("net.ipv4.ip_forward") == "0"
    assert host.sysctl("net/ipv4/conf/eth0/forwarding") == "1"
    assert host.sysctl("net/ipv4/conf/lo/forwarding") == "0"
    end(child)
    host.run(NETWRAP, "wait")
    assert host.sysctl("net/ipv4/conf/eth0/forwarding") == "0"


def test_runs_share_a_network_until_the_last_has_gone(uplinked: Uplinked) -> None:
    host = uplinked.host
    first = start(host, "-nic", "nat", name="one")
    second = start(host, "-nic", "nat", name="two")
    third = start(host, "-nic", "nat", name="two")
    shown = ps(host)
    macs = {nic["macs"][0] for run in shown["runs"] for nic in run["nics"]}
    assert len(macs) == 3
    assert len(shown["networks"][0]["members"]) == 3
    index = Path(f"/proc/{host.pid}/net/dev").read_text("utf-8").count("qn-nat")
    end(first, signal.SIGKILL)
    host.run(NETWRAP, "wait", str(first.pid))
    assert index == Path(f"/proc/{host.pid}/net/dev").read_text("utf-8").count("qn-nat") == 1
    assert "masquerade" in host.run("nft", "list", "table", "inet", "qemu_netwrap").stdout
    assert ps(host)["networks"][0]["dnsmasq"]
    end(second)
    end(third)
    host.run(NETWRAP, "wait")
    assert gone(host)


def test_ps_shows_the_run_and_its_network(running: tuple[Host, subprocess.Popen[str]]) -> None:
    host, child = running
    shown = ps(host)
    (run,) = shown["runs"]
    assert (run["run"], run["name"], run["state"]) == (str(child.pid), "web", "running")
    assert run["pid"] == child.pid
    assert run["memory"] > 1 << 20
    assert run["uptime"] > 0
    (nic,) = run["nics"]
    assert nic["tap"] == f"qn{child.pid}-0"
    (network,) = shown["networks"]
    assert network["mode"] == "nat"
    assert network["ports"] == [nic["tap"]]
    assert not network["faults"]
    text = host.run(NETWRAP, "ps").stdout
    assert str(child.pid) in text
    assert "web" in text
    end(child)
    host.run(NETWRAP, "wait", check=True)
    assert host.run(NETWRAP, "ps").stdout == "nothing runs\n"


def test_stop_by_the_guests_name_waits_for_the_teardown(
    running: tuple[Host, subprocess.Popen[str]],
) -> None:
    host, child = running
    host.run(NETWRAP, "stop", "web")
    assert gone(host)
    assert child.wait(60) == 0


def test_stop_kills_a_qemu_that_does_not_listen(
    running: tuple[Host, subprocess.Popen[str]],
) -> None:
    host, child = running
    child.send_signal(signal.SIGSTOP)
    done = host.run(NETWRAP, "stop", "--timeout", "0.5", str(child.pid))
    assert "had to be killed" in done.stderr
    assert gone(host)
    assert child.wait(60) == -signal.SIGKILL


def test_stop_of_an_unknown_run_says_so(host: Host) -> None:
    done = host.run(NETWRAP, "stop", "nobody", check=False)
    assert done.returncode == 125
    assert "nobody: there is no such run" in done.stderr


def test_the_keeper_is_out_of_reach_and_small(running: tuple[Host, subprocess.Popen[str]]) -> None:
    host, child = running
    keeper = keeper_of(host, child.pid)
    assert os.getsid(keeper) != os.getsid(child.pid)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(keeper, number)
    held = {os.readlink(f"/proc/{keeper}/fd/{fd}") for fd in os.listdir(f"/proc/{keeper}/fd")}
    run = str(child.pid)
    assert {Path(path).name for path in held} == {"null", "lock", "keeper"}
    assert all(run in path for path in held if path != "/dev/null")
    assert Path(f"/proc/{keeper}/cwd").resolve() == Path("/")
    assert keeper_of(host, child.pid) == keeper


def test_a_network_outlives_its_keeper_and_gc_releases_it(
    running: tuple[Host, subprocess.Popen[str]],
) -> None:
    host, child = running
    os.kill(keeper_of(host, child.pid), signal.SIGKILL)
    host.run(NETWRAP, "gc")
    assert f"qn{child.pid}-0" in links(host)  # QEMU lives, so does its network
    end(child, signal.SIGKILL)
    assert ps(host)["runs"][0]["state"] == "dead"
    assert f"run {child.pid}" in host.run(NETWRAP, "gc").stdout
    assert gone(host)


def test_the_next_launch_releases_what_a_killed_keeper_left(
    running: tuple[Host, subprocess.Popen[str]],
) -> None:
    host, child = running
    os.kill(keeper_of(host, child.pid), signal.SIGKILL)
    end(child, signal.SIGKILL)
    following = start(host, "-nic", "host-only")
    wait_for(lambda: "qn-nat" not in links(host), "the dead run's network to go")
    assert "qn-host-only" in links(host)
    end(following)


def test_a_daemonized_qemu_keeps_its_network(uplinked: Uplinked, tmp_path: Path) -> None:
    host = uplinked.host
    pidfile = tmp_path / "pid"
    host.run(NETWRAP, "--", *QEMU, "-nic", "nat", "-daemonize", "-pidfile", str(pidfile))
    pid = int(pidfile.read_text("utf-8"))
    (run,) = ps(host)["runs"]
    assert run["pid"] == pid
    assert run["state"] == "running"
    assert run["run"] != str(pid)
    host.run(NETWRAP, "stop", str(pid))  # what ps and the pid file tell
    assert gone(host)


def test_ctrl_c_on_the_terminal_ends_qemu_and_not_the_keeper(uplinked: Uplinked) -> None:
    host = uplinked.host
    pid, terminal = pty.fork()
    if pid == 0:
        words = host.argv(NETWRAP, "--", *QEMU, "-nic", "nat", "-serial", "none")
        os.execvp(words[0], words)
    wait_for(lambda: is_qemu(pid), "QEMU on the terminal")
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    host.run(NETWRAP, "wait")
    assert gone(host)
    shown = os.read(terminal, 4096).decode()
    assert f"qn{pid}-0 on nat (qn-nat" in shown
    os.close(terminal)


def test_nothing_is_said_where_stderr_is_no_terminal(uplinked: Uplinked, tmp_path: Path) -> None:
    program = tmp_path / "qemu-mute"
    program.write_text("#!/bin/sh\n", "utf-8")
    program.chmod(0o755)
    done = uplinked.host.run(NETWRAP, "--", str(program), "-nic", "nat")
    assert (done.stdout, unhurried(done.stderr)) == ("", "")
    uplinked.host.run(NETWRAP, "wait")  # or the next run might join that network
    told = uplinked.host.run(NETWRAP, "-v", "--", str(program), "-nic", "nat").stderr
    assert "+ ip link add qn-nat" in told
    uplinked.host.run(NETWRAP, "wait")


def test_a_mac_of_the_users_that_is_live_is_kept_and_told(uplinked: Uplinked) -> None:
    host = uplinked.host
    mac = "52:54:00:aa:bb:cc"
    first = start(host, "-nic", f"nat,mac={mac}")
    plan = (NETWRAP, "--", *QEMU, "-S", "-nic", f"nat,mac={mac.upper()}")
    second = host.popen(*plan, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: is_qemu(second.pid), "the second QEMU")
    end(second)
    assert second.stderr is not None
    assert f"MAC {mac} is in use by run {first.pid}" in second.stderr.read()
    twice = ("-nic", f"host-only,mac={mac}")
    done = host.run(NETWRAP, "--", "/bin/true", *twice, *twice)
    assert f"MAC {mac} is in use by another NIC of this command" in done.stderr
    end(first)


def test_a_nat_network_follows_the_default_route(uplinked: Uplinked) -> None:
    host = uplinked.host
    route = ("default", "via", "203.0.113.1")
    host.run("ip", "route", "del", *route)
    host.run("ip", "-4", "addr", "flush", "dev", "eth0")
    first = start(host, "-nic", "nat")
    assert host.sysctl("net/ipv4/conf/eth0/forwarding") == "0"
    host.run("ip", "addr", "add", "203.0.113.2/24", "dev", "eth0")
    host.run("ip", "route", "add", *route)
    second = start(host, "-nic", "nat")
    assert host.sysctl("net/ipv4/conf/eth0/forwarding") == "1"
    ruleset = host.run("nft", "list", "ruleset").stdout
    assert ruleset.count('iifname "eth0" oifname != { "eth0", "qn-nat" } drop') == 1
    end(first)
    end(second)
    host.run(NETWRAP, "wait")
    assert host.sysctl("net/ipv4/conf/eth0/forwarding") == "0"


def test_forwarding_stays_on_for_a_host_that_became_a_router(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, "-nic", "nat")
    host.set_sysctl("net.ipv4.ip_forward", 1)
    end(child)
    host.run(NETWRAP, "wait")
    assert host.sysctl("net/ipv4/conf/eth0/forwarding") == "1"
    host.set_sysctl("net.ipv4.ip_forward", 0)


def test_vms_alike_on_several_networks_have_macs_of_their_own(uplinked: Uplinked) -> None:
    host = uplinked.host
    children = [start(host, "-nic", kind, name="twin") for kind in ("nat", "host-only", "nat")]
    macs = [nic["macs"][0] for run in ps(host)["runs"] for nic in run["nics"]]
    assert len(set(macs)) == len(children)
    for child in children:
        end(child)
