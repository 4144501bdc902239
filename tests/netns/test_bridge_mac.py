"""A bridge without an address of its own keeps the MAC it has when a tap of ours is plugged in."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.hooked import SCRIPTS, end, links, ps, start, wait_gone
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    import subprocess

    from lab.fixtures import Watch
    from lab.netns import Host

HELPER = str(Path(sys.executable).with_name("qemu-netwrap-bridge-helper"))
BRIDGE = """
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip link add br0 type bridge forward_delay 0
ip link add port0 address {mac} type veth peer name far0
ip link set port0 master br0 up
ip link set far0 up
ip link set br0 up
until ip link show br0 | grep -q 'state UP'; do sleep 0.01; done
"""
# A random MAC of the kernel's may begin with 0xFE; above the last there is one more.
MACS = ("52:54:00:00:00:07", "fe:00:00:00:00:02", "fe:ff:ff:ff:00:01", "fe:ff:ff:ff:ff:fe")
LAN = '[networks.lan]\nmode = "bridge"\nbridge = "br0"\n'
HIGHEST = "fe:ff:ff:ff:ff:ff"


@pytest.fixture
def bridged(host: Host, watch: Watch, mac: str) -> Host:
    """A machine with the bridge br0, whose MAC is that of its only port."""
    host.run("sh", "-euc", BRIDGE.format(mac=mac))
    watch.baseline(host)
    assert links(host)["br0"]["address"] == mac
    return host


def taps(host: Host) -> list[str]:
    """Return the MACs of the taps on br0."""
    ours = [tap for name, tap in links(host).items() if name not in ("port0", "far0")]
    return [tap["address"] for tap in ours if tap.get("master") == "br0"]


def launched(host: Host) -> subprocess.Popen[str]:
    """Start a VM on br0 by a launch; return when it is up."""
    before = len(taps(host))
    child = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "bridge,br=br0")
    wait_for(lambda: len(taps(host)) > before, "the tap")
    return child


@pytest.mark.parametrize("mac", MACS)
def test_a_bridge_keeps_its_mac(bridged: Host, mac: str) -> None:
    bridged.write("/etc/qemu/bridge.conf", "allow br0\n")
    bridged.write("/etc/qemu-netwrap/config.toml", LAN)
    env = {"QEMU_NETWRAP_NETWORK": "lan"}
    running = [launched(bridged)]
    assert links(bridged)["br0"]["address"] == mac
    running.append(start(bridged, "-nic", f"tap,ifname=tap0,{SCRIPTS}", env=env))
    assert links(bridged)["br0"]["address"] == mac
    running.append(start(bridged, "-nic", f"bridge,br=br0,helper={HELPER}"))
    assert links(bridged)["br0"]["address"] == mac
    found = taps(bridged)
    assert len(found) == len(running)
    assert min(found) > mac
    assert len(set(found)) == len(found) or set(found) == {HIGHEST}
    assert not any(network["faults"] for network in ps(bridged)["networks"])
    for child in running:
        end(child, signal.SIGKILL)
    wait_gone(bridged)
    assert links(bridged)["br0"]["address"] == mac
