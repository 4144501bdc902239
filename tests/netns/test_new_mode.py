"""A network mode is one driver: a throw-away one is added by its file and a line in the registry.

Nothing else of the package changes, and every command knows the mode.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from lab.installation import Installation
from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import IDLE, QEMU

if TYPE_CHECKING:
    from pathlib import Path

    from lab.netns import Host, Uplinked

# Guests that reach each other, and not the host: a bridge without an address and without dnsmasq.
LONELY: Final = '''
"""lonely: guests reach each other, and nobody else."""

from qemu_netwrap import networks
from qemu_netwrap.networks.base import NetworkDriver
from qemu_netwrap.networks.bridge import guarded, own_bridge
from qemu_netwrap.resources.sysctls import Sysctl


def read_mtu(value):
    if not isinstance(value, int) or not 68 <= value <= 65535:
        raise ValueError("expected an MTU from 68 to 65535")
    return value


class Driver(NetworkDriver):
    def readers(self):
        return {**networks.keys.BRIDGED, "lonely_mtu": read_mtu}

    def network_resources(self, network, host):
        mtu = network.setting("lonely_mtu") or 0
        return guarded(own_bridge(network, host).replace(mtu=mtu))

    def nic_resources(self, request):
        quiet = Sysctl(request.nic.tap, "ipv4", "arp_ignore", "8")
        return (*super().nic_resources(request), quiet)
'''
# A NIC that is no tap: QEMU gets a socket of its own kind, and none of the user's keys of a tap.
WIRED: Final = '''
"""wired: guests are on datagram sockets."""

from qemu_netwrap.model.run import Attachment
from qemu_netwrap.networks.base import NetworkDriver
from qemu_netwrap.networks.bridge import guarded, own_bridge


class Driver(NetworkDriver):
    def network_resources(self, network, host):
        return guarded(own_bridge(network, host))

    def nic_resources(self, request):
        return ()

    def attachment(self, nic, grant):
        ends = {"local": "5001", "remote": "5002"}
        pairs = [
            pair
            for end, port in ends.items()
            for pair in (
                (f"{end}.type", "inet"), (f"{end}.host", "127.0.0.1"), (f"{end}.port", port)
            )
        ]
        return Attachment("dgram", tuple(pairs), keys=False)
'''
LINES: Final = """\\
    "lonely": Mode("lonely", filters_macs=True, is_type=True),
    "wired": Mode("wired", is_type=True),
"""
CONFIG: Final = """
[networks.attic]
mode = "lonely"
bridge = "attic0"
lonely_mtu = 1400
"""
TAP_KEY: Final = "/proc/sys/net/ipv4/conf/{}/arp_ignore"


@pytest.fixture
def changed(tmp_path: Path) -> Installation:
    """A copy of the package with a file and a line more for each mode."""
    made = Installation(tmp_path / "venv").with_libraries()
    (made.package / "networks" / "lonely.py").write_text(LONELY, "utf-8")
    (made.package / "networks" / "wired.py").write_text(WIRED, "utf-8")
    registry = made.package / "model" / "network.py"
    text, count = re.subn(r"(?m)^MODES = \{\n", rf"\g<0>{LINES}", registry.read_text("utf-8"))
    assert count == 1
    registry.write_text(text, "utf-8")
    return made


def shown(host: Host, changed: Installation, *words: str) -> dict[str, Any]:
    """What a command of the copy says in JSON."""
    found = json.loads(host.run(*changed.command(*words)).stdout)
    assert isinstance(found, dict)
    return found


def link(host: Host, name: str) -> dict[str, Any]:
    (found,) = json.loads(host.run("ip", "-d", "-j", "address", "show", "dev", name).stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("words", "config", "network", "bridge", "mtu"),
    [
        (("-nic", "lonely"), "", "lonely", "qn-lonely", 1500),
        (("-nic", "tap,network=attic"), CONFIG, "attic", "attic0", 1400),
        (("-nic", "bridge,br=attic0"), CONFIG, "attic", "attic0", 1400),
    ],
)
def test_a_launch_on_it(
    uplinked: Uplinked,
    changed: Installation,
    tmp_path: Path,
    words: tuple[str, ...],
    config: str,
    network: str,
    bridge: str,
    mtu: int,
) -> None:
    """The plan names what is then there, `ps` lists it, and all of it goes with QEMU."""
    host = uplinked.host
    file = tmp_path / "config.toml"
    file.write_text(config, "utf-8")
    options = ("--config", str(file))
    before = snapshot(host)

    planned = shown(host, changed, *options, "plan", "--json", QEMU, *IDLE, *words)
    kinds = [step["kind"] for step in planned["steps"]]
    assert kinds == [
        *("Membership", "Bridge", "DeviceSetting", "DeviceSetting"),
        *("Tap", "IpFilter", "DeviceSetting", "HostName", "MacFilter"),
    ]
    assert planned["networks"][0]["mode"] == "lonely"
    assert set(snapshot(host).facts) == set(before.facts)

    null = subprocess.DEVNULL
    start = changed.command(*options, "-q", "--", QEMU, *IDLE, *words)
    qemu = host.popen(*start, stderr=null)
    tap = f"qn{qemu.pid}-0"
    try:
        wait_for(lambda: host.processes().get(qemu.pid, "").startswith(QEMU), "QEMU")
        assert link(host, tap)["master"] == bridge
        assert link(host, bridge)["addr_info"] == []
        assert link(host, bridge)["mtu"] == mtu
        assert host.read(TAP_KEY.format(tap)).strip() == "8"
        assert "dnsmasq" not in " ".join(host.processes().values())
        ports = shown(host, changed, *options, "ps", "--json")
        ((run,), (up,)) = ports["runs"], ports["networks"]
        assert (run["run"], run["nics"][0]["network"], run["faults"]) == (
            str(qemu.pid), network, [],
        )  # fmt: skip
        assert (up["name"], up["mode"], up["bridge"], up["faults"]) == (
            network, "lonely", bridge, [],
        )  # fmt: skip
        another_joins(host, changed, start, bridge)
    finally:
        qemu.kill()
        qemu.wait()
    wait_same(host, before)


def another_joins(host: Host, changed: Installation, start: tuple[str, ...], bridge: str) -> None:
    """A second VM comes and goes, and the network stays."""
    qemu = host.popen(*start, stderr=subprocess.DEVNULL)
    try:
        tap = f"qn{qemu.pid}-0"
        wait_for(lambda: host.processes().get(qemu.pid, "").startswith(QEMU), "the other QEMU")
        assert link(host, tap)["master"] == bridge
    finally:
        qemu.kill()
        qemu.wait()
    host.run(*changed.command("wait", str(qemu.pid)))
    assert link(host, bridge)["ifname"] == bridge


@pytest.mark.parametrize(
    "typed",
    [
        "wired,id=n0,queues=1,ifname=other0",
        '{"type": "wired", "id": "n0", "queues": 1, "ifname": "other0"}',
    ],
)
def test_a_nic_that_is_no_tap(uplinked: Uplinked, changed: Installation, typed: str) -> None:
    """QEMU gets what the driver says, and the NIC has no resource but its name."""
    host = uplinked.host
    before = snapshot(host)
    words = (QEMU, *IDLE, "-netdev", typed)
    planned = shown(host, changed, "plan", "--json", *words)
    kinds = [step["kind"] for step in planned["steps"]]
    assert kinds == ["Membership", "Bridge", "DeviceSetting", "DeviceSetting"]
    qemu = host.popen(*changed.command("-q", "--", *words), stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: host.processes().get(qemu.pid, "").startswith(QEMU), "QEMU")
        wait_for(lambda: "5001" in host.run("ss", "-Huan", "sport = 5001").stdout, "the socket")
        command = host.processes()[qemu.pid]
        assert "other0" not in command
        assert "queues" not in command
        assert host.run("ip", "link", "show", "dev", "other0", check=False).returncode
        (run,) = shown(host, changed, "ps", "--json")["runs"]
        assert (run["run"], run["faults"]) == (str(qemu.pid), [])
    finally:
        qemu.kill()
        qemu.wait()
    wait_same(host, before)


def test_its_keys(changed: Installation, tmp_path: Path) -> None:
    """They are read, refused, shown and suggested like all others."""
    file = tmp_path / "config.toml"

    def told(text: str) -> str:
        file.write_text(text, "utf-8")
        words = changed.command("--config", str(file), "config", "show")
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert "lonely_mtu = 1400" in told(CONFIG)
    assert "lonely_mtu: expected an MTU from 68 to 65535" in told(CONFIG.replace("1400", "7"))
    assert "is for: lonely" in told('[networks.x]\nmode = "nat"\nlonely_mtu = 1400\n')
    assert "did you mean lonely_mtu" in told(CONFIG.replace("lonely_mtu", "lonely_mut"))
    assert "dns: is not for mode lonely" in told(CONFIG + 'dns = ["192.0.2.53"]\n')
    assert "one of: lonely, wired, bridge, nat, host-only" in told('[networks.x]\nmode = "x"\n')


def test_what_it_does_not_allow(uplinked: Uplinked, changed: Installation) -> None:
    """What other modes have is refused by its traits."""
    start = changed.command("--", QEMU, *IDLE, "-nic", "lonely,hostfwd=tcp::2222-:22")
    done = uplinked.host.run(*start, check=False)
    assert "hostfwd= is for nat, and lonely is a lonely network" in done.stderr
