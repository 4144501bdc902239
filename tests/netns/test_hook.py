"""qemu-ifup and qemu-ifdown: a bare QEMU calls them, and its tap is on a network while it lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import qemus
from lab.hooked import (
    IFDOWN,
    IFUP,
    SCRIPTS,
    end,
    has_state,
    keeper,
    links,
    monitor,
    pid_of,
    ps,
    start,
    switches,
    wait_gone,
)
from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

TAP = ("-nic", f"tap,ifname=tap0,{SCRIPTS}")
LAB = '[networks.lab]\nmode = "host-only"\nbridge = "lab0"\n'
CONFIG = "/etc/qemu-netwrap/config.toml"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

USERS_TAP = """
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip tuntap add tap0 mode tap vnet_hdr
ip link set tap0 mtu 1400 up
ip link set tap0 down
"""
BRIDGED = """
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip link add br7 type bridge
ip link add port7 type veth peer name far7
ip link set port7 master br7 up
ip link set far7 up
ip link set br7 address 52:54:00:00:00:07 up
until ip link show br7 | grep -q 'state UP'; do sleep 0.01; done
ip address add 192.0.2.1/24 dev br7
ip route replace default dev br7
"""


def held_by(pid: int) -> set[str]:
    """Return what a process has open."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return {link.readlink().name.partition(":")[0] for link in folder.iterdir()}
    except FileNotFoundError:  # one that was closed meanwhile
        return set()


def sees(host: Host, tap: str, bridge: str) -> None:
    """See that a tap is an up port of a bridge, under a MAC that bridges do not take over."""
    link = links(host)[tap]
    assert link["master"] == bridge
    assert "UP" in link["flags"]
    assert link["address"].startswith("fe:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_tap_of_qemus_own_is_on_the_network_while_qemu_lives(
    uplinked: Uplinked, number: int
) -> None:
    host = uplinked.host
    child = start(host, "-name", "web", *TAP)
    sees(host, "tap0", "qn-nat")
    assert "masquerade" in host.run("nft", "list", "ruleset").stdout
    (run,) = ps(host)["runs"]
    assert (run["run"], run["name"], run["state"]) == ("tap0", "web", "running")
    assert run["pid"] == child.pid
    assert run["command"].startswith(QEMU)
    assert ps(host)["networks"][0]["ports"] == ["tap0"]
    assert end(child, number) == (0 if number == signal.SIGTERM else -number)
    wait_gone(host)


def test_a_tap_is_plugged_into_a_bridge_that_is_made_anew(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    host.run("ip", "link", "del", "qn-nat")
    assert ps(host)["networks"][0]["faults"]
    netwrap(host, "--", "/bin/true", "-nic", "nat", check=True)
    sees(host, "tap0", "qn-nat")
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_after_an_orderly_end_nobody_has_to_wait(uplinked: Uplinked) -> None:
    """QEMU waits for qemu-ifdown, and that for the teardown."""
    child = start(uplinked.host, *TAP)
    assert end(child, signal.SIGTERM) == 0
    assert not has_state(uplinked.host)
    assert set(links(uplinked.host)) == {"lo", "eth0"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_qemu_that_has_daemonized(uplinked: Uplinked, number: int) -> None:
    host = uplinked.host
    daemon = ("-daemonize", "-pidfile", "/run/pid")
    host.run(QEMU, *IDLE, *TAP, *daemon)
    pid = pid_of(host, "/run/pid")
    sees(host, "tap0", "qn-nat")
    assert ps(host)["runs"][0]["pid"] == pid
    os.kill(pid, number)
    wait_gone(host)
    host.run("rm", "-f", "/run/pid")


def test_stop_ends_the_qemu_that_has_the_tap(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, "-name", "web", *TAP)
    other = start(host, "-nic", f"tap,ifname=tap1,{SCRIPTS}")
    netwrap(host, "stop", "web", check=True)
    assert child.wait(60) == 0
    assert [run["run"] for run in ps(host)["runs"]] == ["tap1"]
    end(other, signal.SIGKILL)
    netwrap(host, "wait", check=True)
    assert not has_state(host)


def test_stop_means_a_tap_of_this_network_namespace_alone(uplinked: Uplinked, host: Host) -> None:
    """The same name, in two namespaces."""
    there = start(host, *TAP)
    here = start(uplinked.host, *TAP)
    netwrap(uplinked.host, "stop", "tap0", check=True)
    assert here.wait(60) == 0
    assert there.poll() is None
    sees(host, "tap0", "qn-nat")
    end(there, signal.SIGKILL)


def test_runs_of_both_kinds_share_a_network(uplinked: Uplinked) -> None:
    host = uplinked.host
    first = start(host, *TAP)
    launched = host.popen(COMMAND, "--", QEMU, *IDLE, "-nic", "nat", stdout=subprocess.DEVNULL)
    wait_for(lambda: f"qn{launched.pid}-0" in links(host), "the launch")
    third = start(host, "-nic", f"tap,ifname=tap1,{SCRIPTS}")
    index = links(host)["qn-nat"]["ifindex"]
    end(first, signal.SIGTERM)
    launched.kill()
    launched.wait()
    netwrap(host, "wait", str(launched.pid), check=True)
    assert links(host)["qn-nat"]["ifindex"] == index
    sees(host, "tap1", "qn-nat")
    end(third, signal.SIGKILL)
    wait_gone(host)


def test_two_nics_of_one_qemu(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP, "-netdev", f"tap,id=n1,ifname=tap1,queues=2,{SCRIPTS}")
    sees(host, "tap0", "qn-nat")
    sees(host, "tap1", "qn-nat")
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_a_netdev_that_the_monitor_removes(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, "-netdev", f"tap,id=n1,ifname=tap1,{SCRIPTS}")
    sees(host, "tap1", "qn-nat")
    monitor(child, "netdev_del", id="n1")
    wait_gone(host)
    assert child.poll() is None
    end(child, signal.SIGKILL)


def test_the_network_is_the_environments(host: Host) -> None:
    host.write(CONFIG, f'default = "nat"\n{LAB}')
    child = start(host, *TAP, env={"QEMU_NETWRAP_NETWORK": "lab"})
    sees(host, "tap0", "lab0")
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_the_network_is_the_configurations_default(host: Host) -> None:
    host.write(CONFIG, f'default = "lab"\n{LAB}')
    child = start(host, *TAP)
    sees(host, "tap0", "lab0")
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_the_network_is_the_bridge_of_the_default_route(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    host.run("sh", "-euc", BRIDGED)
    watch.baseline(host)
    child = start(host, *TAP)
    sees(host, "tap0", "br7")
    end(child, signal.SIGKILL)
    wait_gone(host)


@pytest.mark.parametrize(
    ("env", "config", "said"),
    [
        ({"QEMU_NETWRAP_NETWORK": "nope"}, "", "QEMU_NETWRAP_NETWORK=nope: there is no network"),
        ({}, "default = 5\n", f"{CONFIG}:1: default: expected a string"),
        ({"QEMU_NETWRAP_NETWORK": "lab"}, LAB.replace("lab0", "eth0"), "eth0 exists already"),
    ],
)
def test_a_failure_ends_qemu_and_says_why(
    uplinked: Uplinked, env: dict[str, str], config: str, said: str
) -> None:
    host = uplinked.host
    if config:
        host.write(CONFIG, config)
    done = host.run(QEMU, *IDLE, *TAP, env=env, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "\n  hint: " in done.stderr
    assert "failed with status" in done.stderr  # QEMU's own words
    wait_gone(host)


@pytest.mark.parametrize("words", [(), ("tap0", "br0"), ("",)])
def test_wrong_words(host: Host, words: tuple[str, ...]) -> None:
    done = host.run(IFUP, *words, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("qemu-netwrap: ")


def test_only_taps_are_plugged_in(uplinked: Uplinked) -> None:
    done = uplinked.host.run(IFUP, "eth0", check=False)
    assert (done.returncode, "eth0 is no tap" in done.stderr) == (125, True)
    assert not has_state(uplinked.host)


def test_a_qemu_of_an_ordinary_user_is_told_the_remedy(host: Host, watch: Watch) -> None:
    host.run("ip", "tuntap", "add", "tap0", "mode", "tap", "user", "65534")
    watch.baseline(host)
    done = host.run(*NOBODY, IFUP, "tap0", check=False)
    assert done.returncode == 125
    assert "tap0: QEMU runs its scripts as its own user" in done.stderr
    assert "--run-as" in done.stderr
    assert not has_state(host)


def test_a_qemu_that_becomes_another_user(uplinked: Uplinked) -> None:
    """Its qemu-ifdown can do nothing, and says nothing; the keeper sees the tap go."""
    host = uplinked.host
    child = host.popen(
        QEMU,
        *IDLE,
        *TAP,
        *qemus.leaving(user="nobody"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    is_nobody = f"Uid:\t{65534}"
    status = Path(f"/proc/{child.pid}/status")
    wait_for(lambda: is_nobody in status.read_text("utf-8"), "QEMU as nobody")
    sees(host, "tap0", "qn-nat")
    assert end(child, signal.SIGTERM) == 0
    assert child.stderr is not None
    assert "failed" not in child.stderr.read()
    wait_gone(host)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_tap_that_the_user_has_made_stays_as_it_was(
    uplinked: Uplinked, watch: Watch, number: int
) -> None:
    """As by `tunctl`: it outlives QEMU, whose end shows in its carrier alone."""
    host = uplinked.host
    host.run("sh", "-euc", USERS_TAP)
    watch.baseline(host)
    before = snapshot(host)
    child = start(host, *TAP)
    sees(host, "tap0", "qn-nat")
    end(child, number)
    wait_gone(host)
    wait_same(host, before)


def test_a_tap_may_be_put_on_its_network_by_hand(uplinked: Uplinked, watch: Watch) -> None:
    """Before QEMU starts, and taken off when it is gone: as many scripts do."""
    host = uplinked.host
    host.run("sh", "-euc", USERS_TAP)
    watch.baseline(host)
    before = snapshot(host)
    host.run(IFUP, "tap0")
    sees(host, "tap0", "qn-nat")
    assert ps(host)["runs"][0]["state"] == "idle"
    host.run(IFUP, "tap0")  # once more is no mistake
    plain = "tap,ifname=tap0,script=no,downscript=no"
    for _ in range(2):
        child = start(host, "-nic", plain)
        assert ps(host)["runs"][0]["state"] == "running"
        end(child, signal.SIGKILL)
        netwrap(host, "gc", check=True)
        sees(host, "tap0", "qn-nat")
    done = host.run(IFUP, "tap0", env={"QEMU_NETWRAP_NETWORK": "host-only"}, check=False)
    assert "tap0 is on network nat already" in done.stderr
    host.run(*NOBODY, IFDOWN, "tap0", check=False)
    sees(host, "tap0", "qn-nat")
    host.run(IFDOWN, "tap0")
    assert not has_state(host)
    host.run(IFDOWN, "tap0")  # nothing is left to do
    netwrap(host, "ifup", "tap0", check=True)
    netwrap(host, "stop", "tap0", check=True)
    wait_gone(host)
    wait_same(host, before)


def test_a_tap_that_is_somebody_elses_port_is_left(host: Host, watch: Watch) -> None:
    host.run("sh", "-euc", "ip link add br5 type bridge; ip tuntap add tap0 mode tap;"
             " ip link set tap0 master br5")  # fmt: skip
    watch.baseline(host)
    done = host.run(IFUP, "tap0", check=False)
    assert (done.returncode, "tap0 is a port of br5 already" in done.stderr) == (125, True)
    wait_gone(host)


def test_a_tap_that_is_renamed_is_the_same(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    for words in (("down",), ("name", "web0"), ("up",)):
        host.run("ip", "link", "set", "web0" if words == ("up",) else "tap0", *words)
    netwrap(host, "gc", check=True)
    assert ps(host)["runs"][0]["pid"] == child.pid
    assert links(host)["web0"]["master"] == "qn-nat"
    end(child, signal.SIGTERM)
    wait_gone(host)


def test_a_tap_that_leaves_the_namespace_ends_its_run(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    host.run("ip", "link", "set", "tap0", "netns", str(uplinked.net.pid))
    wait_gone(host)
    end(child, signal.SIGKILL)


def test_without_its_keeper_the_network_stays_while_qemu_lives(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    os.kill(keeper(host), signal.SIGKILL)
    netwrap(host, "gc", check=True)
    sees(host, "tap0", "qn-nat")
    assert ps(host)["runs"][0]["state"] == "running"
    waiting = host.popen(COMMAND, "wait", "tap0")
    end(child, signal.SIGKILL)
    assert waiting.wait(60) == 0  # it saw to the teardown
    assert not has_state(host)


@pytest.mark.parametrize("next_one", ["gc", "launch", "hook"])
def test_what_a_dead_keeper_left_the_next_one_releases(uplinked: Uplinked, next_one: str) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    os.kill(keeper(host), signal.SIGKILL)
    end(child, signal.SIGKILL)
    assert ps(host)["runs"][0]["state"] == "dead"
    if next_one == "gc":
        assert "run tap0" in netwrap(host, "gc", check=True).stdout
    elif next_one == "launch":
        netwrap(host, "--", "/bin/true", "-nic", "host-only", check=True)
    else:
        again = start(host, *TAP, env={"QEMU_NETWRAP_NETWORK": "host-only"})
        wait_for(lambda: "qn-nat" not in links(host), "the dead run's network to go")
        sees(host, "tap0", "qn-host-only")
        end(again, signal.SIGKILL)
    wait_gone(host)


def test_an_orderly_end_without_a_keeper_leaves_nothing(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    os.kill(keeper(host), signal.SIGKILL)
    assert end(child, signal.SIGTERM) == 0
    assert not has_state(host)


def test_the_keeper_sleeps_through_what_others_do(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = start(host, *TAP)
    sleeper = keeper(host)
    needed = {"null", "lock", "keeper", "socket"}
    wait_for(lambda: held_by(sleeper) == needed, "the keeper to have no more than it needs")
    before = switches(sleeper)
    many = "".join(f"link add v{n} type veth peer name w{n}\nlink del v{n}\n" for n in range(50))
    host.run("ip", "-batch", "-", input=many)
    host.run("ip", "link", "set", "eth0", "alias", "something")
    host.run("ip", "link", "set", "eth0", "alias", "")
    assert switches(sleeper) - before < 10  # its own tap may still settle
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_the_scripts_of_a_tutorial_with_us_in_them(uplinked: Uplinked, tmp_path: Path) -> None:
    """A script in the current folder that calls us in its own way."""
    host = uplinked.host
    for name, program in (("qemu-ifup", IFUP), ("qemu-ifdown", IFDOWN)):
        script = tmp_path / name
        script.write_text(f'#!/bin/bash\nif [ -n "$1" ]; then\n  {program} "$1"\nfi\n', "utf-8")
        script.chmod(0o755)
    net = "-net nic -net tap,ifname=tap0,script=./qemu-ifup,downscript=./qemu-ifdown".split()
    words = (QEMU, *IDLE, *net, "-daemonize", "-pidfile", "/run/pid")
    host.run(*words, cwd=tmp_path)
    sees(host, "tap0", "qn-nat")
    os.kill(pid_of(host, "/run/pid"), signal.SIGTERM)  # from / it does not find its downscript
    wait_gone(host)
    host.run("rm", "-f", "/run/pid")


def test_a_tap_on_an_isolated_network_is_isolated(host: Host) -> None:
    host.write(CONFIG, f'default = "lab"\n{LAB}isolated = true\n')
    before = snapshot(host)
    child = start(host, *TAP)
    link = json.loads(host.run("ip", "-j", "-d", "link", "show", "tap0").stdout)[0]
    assert link["linkinfo"]["info_slave_data"]["isolated"]
    end(child, signal.SIGTERM)
    wait_gone(host)
    wait_same(host, before)
