"""Settings and the lines they come from."""

from __future__ import annotations

import tomllib

import pytest

from qemu_netwrap.config import parse
from qemu_netwrap.config.effective import Setting, settings
from qemu_netwrap.config.toml_position import line_of
from qemu_netwrap.runtime.network_choice import defined

TEXT = """\
# networks.a.stp = true
[networks.a]
mode = "nat"
'stp' = true

[ networks . b ]   # stp = false
mode = "bridge"
[networks]
c = { mode = "nat" }
d.mode = "nat"
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("networks.a", 2), ("networks.a.mode", 3), ("networks.a.stp", 4), ("networks.a.dns", 2),
        ("networks.b", 6), ("networks.b.mode", 7), ("networks.b.stp", 6), ("networks", 8),
        ("networks.c.mode", 9), ("networks.c", 9), ("networks.d.mode", 10), ("default", 1),
    ],
)  # fmt: skip
def test_lines(path: str, line: int) -> None:
    assert line_of(TEXT, path) == line


def test_every_key_that_is_for_the_mode_is_told() -> None:
    read = parse.parse(TEXT, "c")
    found = settings(read, defined(read), "", TEXT)
    by_network = {name: {s.key: s for s in found if s.network == name} for name in ("", "a", "b")}
    assert set(by_network["a"]) == {k for k, modes in parse.keys().items() if "nat" in modes}
    assert set(by_network["b"]) == {k for k, modes in parse.keys().items() if "bridge" in modes}
    assert by_network["a"]["stp"] == Setting("a", "stp", True, "c:4")
    assert by_network[""]["default"] == Setting("", "default", None, "default")
    assert by_network[""]["bind_group"] == Setting("", "bind_group", False, "default")
    assert by_network[""]["uplink_helper"].text == 'uplink_helper = "auto"'
    assert by_network[""]["run_as"] == Setting("", "run_as", None, "default")
    assert by_network["a"]["subnet"].text.startswith("# subnet: ")
    assert by_network["a"]["mode"].text == 'mode = "nat"'
    assert by_network["b"]["uplink"].text == "# uplink: none: a segment of its own"


def test_every_value_is_toml() -> None:
    text = """
        [networks.a]
        mode = "nat"
        stp = true
        isolated = true
        mac_filter = false
        ip_filter = true
        dns = ["192.0.2.1", "192.0.2.2"]
        subnet = "10.1.0.0/24"
        hosts = { files = "192.0.2.9", "a.example" = "2001:db8::9" }
        addresses = { web = "10.1.0.9", "52:54:00:00:00:0a" = "10.1.0.10" }
        host_services = ["ssh", "tcp/8000-8100"]
        tftp = "/srv/tftp"
        bootfile = "pxelinux.0"
        [networks.closed]
        mode = "host-only"
        host_services = []
        [networks.b]
        mode = "bridge"
        uplink = "enp3s0"
    """
    read = parse.parse(text, "c")
    for network in read.networks:
        shown = "\n".join(s.text for s in settings(read, (network,), "", text) if s.network)
        given = tomllib.loads(text)["networks"][network.name]
        assert tomllib.loads(shown).items() >= given.items()
