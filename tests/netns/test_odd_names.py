"""Names that an interface can have, and that mean something to us or to others: they mean nothing.

Where state is kept they would be files of ours (`-kept`, `-host`), scratch files (`vm~`) or hidden;
network managers would read them as patterns.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from lab import neighbours
from lab.hooked import SCRIPTS, end, links, ps, start, wait_gone
from lab.netns import internet, wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from lab.netns import Host, Uplinked

BRIDGES = ("-host", "-nft", "*", "a~", ".x")
TAPS = ("vm~", "-kept")


def launched(host: Host, *words: str) -> subprocess.Popen[str]:
    """Return a launch whose QEMU runs."""
    child = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, *words)
    what = "the run"
    wait_for(lambda: str(child.pid) in {r["run"] for r in ps(host)["runs"] if r["nics"]}, what)
    return child


def ended(host: Host, child: subprocess.Popen[str]) -> None:
    """End a launch, and wait for its teardown."""
    child.kill()
    child.wait(60)
    netwrap(host, "wait", str(child.pid), check=True, timeout=120)


@pytest.mark.parametrize("name", TAPS)
def test_a_living_taps_network_stays(uplinked: Uplinked, name: str) -> None:
    host = uplinked.host
    child = start(host, "-nic", f"tap,ifname={name},{SCRIPTS}")
    assert [run["run"] for run in ps(host)["runs"]] == [name]
    ended(host, launched(host, "-nic", "nat"))
    other = launched(host, "-nic", "nat")
    down = netwrap(host, "network", "down", "nat", check=True)
    assert "goes with the last run" in down.stdout
    ended(host, other)
    netwrap(host, "gc", check=True)
    (network,) = ps(host)["networks"]
    assert (network["bridge"], network["members"], network["kept"]) == ("qn-nat", [name], False)
    assert (network["ports"], network["faults"]) == ([name], [])
    assert links(host)[name]["master"] == "qn-nat"
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_a_tap_called_kept_keeps_nothing(uplinked: Uplinked) -> None:
    host = uplinked.host
    netwrap(host, "network", "up", "nat", check=True)
    child = start(host, "-nic", f"tap,ifname=-kept,{SCRIPTS}")
    end(child, signal.SIGKILL)
    wait_for(lambda: not ps(host)["runs"], "the run's end")
    assert "qn-nat" in links(host)
    assert ps(host)["networks"][0]["kept"]
    netwrap(host, "network", "down", "nat", check=True)
    wait_gone(host)


@pytest.mark.parametrize("name", BRIDGES)
def test_a_bridge_may_have_any_name(host: Host, name: str) -> None:
    typed = f"bridge,br={name}"
    child = launched(host, "-nic", typed)
    assert name in links(host)
    assert [each["bridge"] for each in ps(host)["networks"]] == [name]
    assert netwrap(host, "gc", check=True, timeout=120).stdout == "nothing was left\n"
    with_nat = launched(host, "-nic", "host-only", "-nic", typed)
    assert sorted(each["bridge"] for each in ps(host)["networks"]) == sorted([name, "qn-host-only"])
    ended(host, with_nat)
    ended(host, child)
    assert set(links(host)) == {"lo"}


@pytest.mark.parametrize("name", ["-x", "vm~", "a#b"])
def test_a_tap_of_ours_may_have_any_name(uplinked: Uplinked, name: str) -> None:
    host = uplinked.host
    typed = f"nat,ifname={name},vhost=off,hostfwd=tcp::2222-:22"
    child = launched(host, "-nic", typed)
    assert links(host)[name]["master"] == "qn-nat"
    assert "dport 2222 dnat" in host.run("nft", "list", "ruleset").stdout
    ended(host, child)
    wait_gone(host)


@pytest.mark.parametrize("name", [".", "..", "%", "all", "default", "a b", "x\n", "a/b"])
def test_what_no_interface_can_be_called_is_refused(host: Host, name: str) -> None:
    for typed in (f"bridge,br={name}", f"nat,ifname={name}", f"bridge,br=b,uplink={name}"):
        done = netwrap(host, "--", QEMU, *IDLE, "-nic", typed)
        assert done.returncode == 125
        assert "hint: " in done.stderr
        assert "\x1b" not in done.stderr


@pytest.fixture
def managed(lab: None) -> Iterator[Host]:
    """Yield a machine with an uplink. A manager is at work on it, so no leak detector."""
    with internet() as both:
        yield both.host


@pytest.mark.parametrize(
    ("manager", "name"), [(neighbours.network_manager, "*"), (neighbours.networkd, "!x")]
)
def test_a_manager_is_not_told_a_pattern(
    managed: Host, manager: Callable[[Host], None], name: str
) -> None:
    manager(managed)
    told = ("find", "/run/NetworkManager/conf.d", "/run/systemd/network", "-name", "*netwrap*")
    done = netwrap(managed, "plan", QEMU, "-nic", f"bridge,br={name}", check=True)
    assert "may take over" in done.stdout
    child = launched(managed, "-nic", f"bridge,br={name}")
    assert managed.run(*told, check=False).stdout == ""
    ended(managed, child)


def test_a_plan_can_be_typed(host: Host) -> None:
    done = netwrap(host, "plan", QEMU, "-nic", "bridge,br=$(reboot)", check=True)
    assert "ip link add '$(reboot)' address" in done.stdout
