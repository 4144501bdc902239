"""`network` and `config`: what is told, and a network that is kept up between runs."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap
from qemu_netwrap.config import parse as core_config

if TYPE_CHECKING:
    import subprocess

    from lab.netns import Host, Uplinked

CONFIG = "/etc/qemu-netwrap/config.toml"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
TEXT = """\
default = "lab"

[networks.lab]
mode = "nat"
subnet = "10.77.0.0/24"

[networks]
lan = { mode = "bridge", bridge = "br0" }
closed.mode = "host-only"
"""


@pytest.fixture
def configured(uplinked: Uplinked) -> Host:
    """Return a machine with a configuration."""
    uplinked.host.write(CONFIG, TEXT, mode=0o644)
    return uplinked.host


def told(host: Host, *args: str, user: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(host.run(*user, COMMAND, *args, "--json", cwd="/").stdout)


def by_name(host: Host, user: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    return {network["name"]: network for network in told(host, "network", "list", user=user)}


def launch(host: Host, *net: str) -> subprocess.Popen[str]:
    """Start QEMU on a network; return when it is a run."""
    child = host.popen(COMMAND, "--", QEMU, *IDLE, *net)
    wait_for(lambda: "running" in {r["state"] for r in told(host, "ps")["runs"]}, "QEMU")
    return child


def test_list_tells_configured_and_built_in_networks(configured: Host) -> None:
    before = snapshot(configured)
    found = by_name(configured)
    assert list(found) == ["lab", "lan", "closed", "nat", "host-only"]
    assert found["lab"]["is_default"]
    assert [n["address"] for n in found.values()] == ["10.77.0.1/24", "", "", "", ""]
    assert {n["state"] for n in found.values()} == {"down"}
    text = netwrap(configured, "network", "list").stdout
    assert "lab*" in text
    assert "br0" in text
    assert snapshot(configured) == before


def test_up_stays_for_launches_and_down_ends_it(configured: Host) -> None:
    before = snapshot(configured)
    printed = netwrap(configured, "network", "up", "lab", check=True).stdout
    assert "10.77.0.1/24" in printed
    assert "network down lab" in printed
    assert found_up(configured) == {"lab": True}
    identity = bridge_and_server(configured)
    assert netwrap(configured, "gc").stdout == "nothing was left\n"
    child = launch(configured, "-nic", "tap,network=lab")
    (network,) = told(configured, "ps")["networks"]
    assert network["kept"]
    assert network["members"] == [str(child.pid)]
    child.send_signal(signal.SIGKILL)
    child.wait()
    netwrap(configured, "wait", check=True)
    assert bridge_and_server(configured) == identity
    assert netwrap(configured, "network", "down", "lab", check=True).stdout == "lab: down\n"
    wait_same(configured, before)
    assert netwrap(configured, "network", "down", "lab").stdout == "lab: it is not up\n"


def bridge_and_server(host: Host) -> tuple[str, int]:
    """Return what tells the network from one that was made anew."""
    shown = told(host, "network", "show", "lab")
    return host.run("cat", "/sys/class/net/qn-lab/ifindex").stdout, shown["dnsmasq"]


def found_up(host: Host, user: tuple[str, ...] = ()) -> dict[str, bool]:
    """Return the networks that are up, and whether they are kept."""
    return {n["name"]: n["kept"] for n in by_name(host, user).values() if n["state"] == "up"}


def test_down_leaves_the_network_to_runs_that_use_it(configured: Host) -> None:
    before = snapshot(configured)
    netwrap(configured, "network", "up", "nat", check=True)
    child = launch(configured, "-nic", "nat")
    printed = netwrap(configured, "network", "down", "nat", check=True).stdout
    assert printed == f"nat: it goes with the last run that uses it: {child.pid}\n"
    assert found_up(configured) == {"nat": False}
    netwrap(configured, "stop", str(child.pid), check=True)
    child.wait()
    wait_same(configured, before)


def test_a_network_that_is_no_longer_configured_can_be_let_go(configured: Host) -> None:
    netwrap(configured, "network", "up", "lab", check=True)
    assert netwrap(configured, "--config", "/dev/null", "network", "list").stdout.count("lab") == 2
    netwrap(configured, "--config", "/dev/null", "network", "down", "lab", check=True)
    assert found_up(configured) == {}


def test_show_tells_who_uses_a_network(configured: Host) -> None:
    netwrap(configured, "network", "up", "lab", check=True)
    shown = told(configured, "network", "show", "lab")
    assert shown["address"] == "10.77.0.1/24"
    assert shown["dnsmasq"]
    assert shown["faults"] == []
    configured.run("nft", "delete", "table", "inet", "qemu_netwrap")
    text = netwrap(configured, "network", "show", "qn-lab").stdout
    assert "up, kept" in text
    assert "its nft rules have been removed" in text
    netwrap(configured, "network", "down", "lab", check=True)
    assert told(configured, "network", "show", "lab")["state"] == "down"


def test_an_ordinary_user_has_networks_of_their_own(configured: Host) -> None:
    """Also with the configuration that root's have; root's stay as they are."""
    netwrap(configured, "network", "up", "lab", check=True)
    before = snapshot(configured)
    assert found_up(configured, NOBODY) == {}
    shown = told(configured, "network", "show", "lab", user=NOBODY)
    assert (shown["state"], shown["address"]) == ("down", "10.77.0.1/24")
    down = configured.run(*NOBODY, COMMAND, "network", "down", "lab", cwd="/").stdout
    assert "lab: it is not up" in down
    assert snapshot(configured) == before
    netwrap(configured, "network", "down", "lab", check=True)


@pytest.mark.parametrize("command", ["up", "down", "show"])
def test_an_unknown_network(configured: Host, command: str) -> None:
    before = snapshot(configured)
    done = netwrap(configured, "network", command, "nosuch")
    assert done.returncode == 125
    assert "there is no" in done.stderr
    assert "lab, lan, closed, nat, host-only" in done.stderr
    wait_same(configured, before)


def test_config_check(configured: Host) -> None:
    assert netwrap(configured, "config", "check", check=True).stdout == (
        f"{CONFIG}: right; networks: lab, lan, closed\n"
    )
    configured.write(CONFIG, TEXT.replace("subnet", "subnot"), mode=0o644)
    done = netwrap(configured, "config", "check")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"qemu-netwrap: {CONFIG}:5: networks.lab.subnot: unknown key")
    assert netwrap(configured, "config", "check", "/dev/null").stdout.startswith("/dev/null: right")
    assert netwrap(configured, "config", "check", "/nosuch").returncode == 125


def test_config_check_tells_of_a_file_that_is_not_read(configured: Host) -> None:
    configured.write("/run/xdg/qemu-netwrap/config.toml", "default = 'nat'\n")
    shown = netwrap(configured, "config", "check", env={"XDG_CONFIG_HOME": "/run/xdg"}).stdout
    assert f"{CONFIG}: is there too, and not read" in shown


def test_config_show_is_what_counts_and_where_it_stands(configured: Host) -> None:
    shown = told(configured, "config", "show")
    assert shown["file"] == CONFIG
    assert shown["default"] == {"value": "lab", "source": f"{CONFIG}:1"}
    lab, lan = shown["networks"]["lab"], shown["networks"]["lan"]
    assert lab["subnet"] == {"value": "10.77.0.0/24", "source": f"{CONFIG}:5"}
    assert lab["bridge"] == {"value": "qn-lab", "source": "default"}
    assert lan["bridge"] == {"value": "br0", "source": f"{CONFIG}:8"}
    assert shown["networks"]["closed"]["mode"]["source"] == f"{CONFIG}:9"
    assert shown["networks"]["nat"]["mode"]["source"] == "default"
    chosen = told(configured, "--network", "lan", "config", "show")
    assert chosen["default"] == {"value": "lan", "source": "--network"}
    text = netwrap(configured, "config", "show").stdout
    again = core_config.parse(text, CONFIG)
    written = core_config.parse(TEXT, CONFIG)
    assert again.default == written.default
    assert again.networks[: len(written.networks)] == written.networks
