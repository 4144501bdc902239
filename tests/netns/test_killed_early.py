"""A bare QEMU is killed while its qemu-ifup, or its bridge helper, is at work for it still."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fidelity.running import QUIET, STATE, state_folder
from lab.hooked import SCRIPTS, has_state, links, ps, wait_gone
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap, unhurried

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from lab.netns import Host

HELPER = str(Path(sys.executable).with_name("qemu-netwrap-bridge-helper"))
STARTS = {
    "qemu-ifup": (QEMU, *IDLE, "-nic", f"tap,ifname=tap0,{SCRIPTS}"),
    "helper": (QEMU, *IDLE, "-nic", f"bridge,br=qn-nat,helper={HELPER}"),
    "launch": (COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "nat"),
}


@pytest.fixture
def lock(host: Host) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the nat network: who starts has to wait for it."""
    host.write("/etc/qemu/bridge.conf", "allow qn-nat\n")
    folder = state_folder(host)
    host.run("mkdir", "-p", "-m", "711", STATE, folder, f"{folder}/locks")
    holder = host.popen("flock", "--no-fork", f"{folder}/locks/qn-nat", "sleep", "1000", **QUIET)
    comm = Path(f"/proc/{holder.pid}/comm")
    wait_for(lambda: comm.read_text("utf-8") == "sleep\n", "the lock to be taken")
    yield holder
    holder.kill()
    holder.wait(30)


def start(host: Host, kind: str) -> subprocess.Popen[str]:
    """Start a QEMU; return it when what provisions its run waits for the network's lock."""
    child = host.popen(*STARTS[kind], **QUIET)
    folder = Path(f"/proc/{host.pid}/root{state_folder(host)}/runs")
    wait_for(lambda: any(folder.glob("*/journal")), "the keeper to wait")
    return child


def kill(child: subprocess.Popen[str]) -> None:
    """Kill a QEMU, and nothing else."""
    child.send_signal(signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["qemu-ifup", "helper"])
def test_a_run_that_is_being_started_is_held_by_nobody(
    host: Host, lock: subprocess.Popen[str], kind: str
) -> None:
    kill(start(host, kind))
    (run,) = ps(host)["runs"]
    assert (run["state"], run["faults"]) == ("starting", [])
    done = netwrap(host, "gc")
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
    assert [each["state"] for each in ps(host)["runs"]] == ["starting"]
    lock.kill()
    wait_gone(host)
    assert "qn-nat" not in links(host)


def test_a_launch_that_is_killed_is_undone(host: Host, lock: subprocess.Popen[str]) -> None:
    kill(start(host, "launch"))
    assert netwrap(host, "gc").returncode == 0
    assert "held" not in {run["state"] for run in ps(host)["runs"]}
    lock.kill()
    lock.wait(30)
    netwrap(host, "gc", check=True)  # the lock's file is left: its keeper did not get the lock
    wait_gone(host)


@pytest.mark.parametrize("kind", ["qemu-ifup", "helper"])
def test_stop_waits_for_what_starts_the_run(
    host: Host, lock: subprocess.Popen[str], kind: str
) -> None:
    child = start(host, kind)
    (run,) = ps(host)["runs"]
    stopping = host.popen(COMMAND, "stop", run["run"])
    assert child.wait(30) != 0
    lock.kill()
    assert stopping.wait(60) == 0
    netwrap(host, "gc", check=True)  # the lock's file, if the keeper has ended before its holder
    assert not has_state(host)


def test_a_tap_that_outlives_a_qemu_that_was_killed_early_has_no_run(
    host: Host, lock: subprocess.Popen[str]
) -> None:
    """It is the user's: but for QEMU it would be idle, and the run would go on."""
    host.run("ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
    kill(start(host, "qemu-ifup"))
    lock.kill()
    wait_gone(host)
    assert "master" not in links(host)["tap0"]
    host.run("ip", "link", "del", "tap0")
