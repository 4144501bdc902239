"""qemu-netwrap-bridge-helper beside QEMU's own, and as an unmodified QEMU calls it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.hooked import end, has_state, links, ps, start, wait_gone
from lab.tool import netwrap, unhurried

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

OURS = str(Path(sys.executable).with_name("qemu-netwrap-bridge-helper"))
QEMUS = "/usr/lib/qemu/qemu-bridge-helper"
CALLER = str(Path(__file__).with_name("calls_helper.py"))
ACL = "/etc/qemu/bridge.conf"
CONFIG = "/etc/qemu-netwrap/config.toml"
MORE = "/etc/qemu/more.conf"
BRIDGE = """
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip link add br0 type bridge
ip link add port0 mtu 1400 type veth peer name far0
ip link set br0 address 52:54:00:00:00:07
ip link set port0 master br0 up
ip link set far0 up
ip link set br0 mtu 1400 up
until ip link show br0 | grep -q 'state UP'; do sleep 0.01; done
"""

# bridge.conf, and a file that it may include.
ACLS: tuple[tuple[str | None, str], ...] = (
    (None, ""),
    ("", ""),
    ("allow br0\n", ""),
    ("  \tallow   br0  \t\n", ""),
    ("allow\tbr0\n", ""),
    ("allow\tbr0 \n", ""),
    ("allow br0", ""),
    ("allow br0\r\n", ""),
    ("allow all\n", ""),
    ("allow br1\n", ""),
    ("# allow br0\n", ""),
    ("#\n\n  # x\nallow br0 # why\n", ""),
    ("allow br0\ndeny br0\n", ""),
    ("deny br0\nallow all\n", ""),
    ("deny all\nallow br0\n", ""),
    ("deny br1\nallow all\n", ""),
    ("allow\n", ""),
    ("allow \n", ""),
    ("Allow br0\n", ""),
    ("allow br0\nnonsense here\n", ""),
    (f"include {MORE}\n", "allow br0\n"),
    (f"include {MORE}\ndeny br0\n", "allow br0\n"),
    (f"allow br0\ninclude {MORE}\n", "deny br0\n"),
    (f"include {MORE}\n", "allow br0\nnonsense here\n"),
    (f"include {MORE}\nallow br0\n", "nonsense here\n"),
    ("include /nowhere\nallow br0\n", ""),
)
WRONG = (
    ("--br=br0",),
    ("--fd=@FD",),
    ("--br=br0", "--fd=@FD", "--more"),
    ("br0", "--fd=@FD"),
    ("--br=nosuch0", "--fd=@FD"),
    ("--br=abcdefghijklmnop", "--fd=@FD"),
    ("--br=", "--fd=@FD"),
    ("--br=br0", "--fd=99"),
    ("--br=port0", "--fd=@FD"),
)


@pytest.fixture
def bridged(host: Host, watch: Watch) -> Host:
    """A machine with the bridge br0."""
    host.run("sh", "-euc", BRIDGE)
    watch.baseline(host)
    return host


def call(host: Host, helper: str, *words: str) -> subprocess.Popen[str]:
    """Call a helper as QEMU does."""
    pipe = subprocess.PIPE
    return host.popen(sys.executable, CALLER, helper, *words, stdin=pipe, stdout=pipe, stderr=pipe)


def answer(host: Host, helper: str, *words: str) -> tuple[str, str]:
    """Return what came of a call, without the tap's name, and what was said."""
    said, told = call(host, helper, *words).communicate(timeout=180)
    return " ".join(said.split()[1:]) or said.strip(), unhurried(told)


@pytest.mark.parametrize(
    "words", [("--use-vnet", "--fd=@FD", "--br=br0"), ("--br=br0", "--fd=@FD")]
)
def test_the_tap_is_as_that_of_qemus_own(bridged: Host, words: tuple[str, ...]) -> None:
    bridged.write(ACL, "allow br0\n")
    found = []
    for helper in (QEMUS, OURS):
        child = call(bridged, helper, *words)
        assert child.stdout is not None
        name, *flags = child.stdout.readline().split()
        tap = links(bridged)[name]
        keys = ("mtu", "master", "operstate", "flags")
        found.append((flags, tap["address"].startswith("fe:"), *(tap[key] for key in keys)))
        child.communicate("", timeout=180)
    assert found[0] == found[1]
    wait_gone(bridged)


def test_bridge_conf_means_the_same_to_both(bridged: Host) -> None:
    words = ("--use-vnet", "--br=br0", "--fd=@FD")
    for acl, more in ACLS:
        bridged.run("rm", "-f", ACL)
        bridged.written.pop(ACL, None)
        if acl is not None:
            bridged.write(ACL, acl)
        bridged.write(MORE, more)
        theirs, _ = answer(bridged, QEMUS, *words)
        ours, said = answer(bridged, OURS, *words)
        assert ours == theirs, (acl, more, said)
        assert (theirs == "refused") == said.startswith("qemu-netwrap: "), (acl, more, said)
    wait_gone(bridged)


def test_a_file_that_includes_itself_is_read_once(bridged: Host) -> None:
    """QEMU's own helper goes round until the stack is full."""
    bridged.write(ACL, f"include {ACL}\nallow br0\n")
    assert answer(bridged, OURS, "--br=br0", "--fd=@FD")[0].endswith(" 1")
    wait_gone(bridged)


def test_what_is_wrong_is_refused_by_both(bridged: Host) -> None:
    bridged.write(ACL, "allow all\n")
    for words in WRONG:
        found = [answer(bridged, helper, *words)[0] for helper in (QEMUS, OURS)]
        assert found == ["refused"] * 2, words
    wait_gone(bridged)


@pytest.mark.parametrize(
    "net",
    [
        f"bridge,br=br0,helper={OURS}",
        f"bridge,helper={OURS}",
        f"tap,helper={OURS}",
        f"tap,helper={OURS} --br=br0",
    ],
)
def test_an_unmodified_qemu(bridged: Host, net: str) -> None:
    bridged.write(ACL, "allow br0\n")
    child = start(bridged, "-name", "web", "-nic", net)
    (run,) = ps(bridged)["runs"]
    assert (run["pid"], run["state"]) == (child.pid, "running")
    assert links(bridged)[run["nics"][0]["tap"]]["master"] == "br0"
    netwrap(bridged, "gc", check=True)
    assert len(ps(bridged)["runs"]) == 1
    end(child, signal.SIGKILL if "br=br0" in net else signal.SIGTERM)
    wait_gone(bridged)


def test_a_network_of_the_configuration_is_made(uplinked: Uplinked) -> None:
    host = uplinked.host
    host.write(ACL, "allow lab0\nallow qn-nat\n")
    host.write(CONFIG, '[networks.lab]\nmode = "host-only"\nbridge = "lab0"\n')
    nets = [f"bridge,br={bridge},helper={OURS}" for bridge in ("lab0", "qn-nat", "lab0")]
    child = start(host, *(word for net in nets for word in ("-nic", net)))
    assert {net["bridge"]: len(net["ports"]) for net in ps(host)["networks"]} == {
        "lab0": 2,
        "qn-nat": 1,
    }
    end(child, signal.SIGKILL)
    wait_gone(host)


def test_a_refusal_says_the_line_to_add(bridged: Host) -> None:
    words = ("--br=br0", "--fd=@FD")
    assert "make it, with a line: allow br0\n" in answer(bridged, OURS, *words)[1]
    bridged.write(ACL, "allow br1\n")
    assert "allow br0\n" in answer(bridged, OURS, *words)[1]
    assert not has_state(bridged)
