"""The effective configuration, key by key, and the source of each value."""

from __future__ import annotations

import json
import tomllib

from qemu_netwrap.config.toml_position import line_of
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import Prefix
from qemu_netwrap.networks.base import driver
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.model.network import Config, Network

DEFAULT = "default"
# Defaults of keys that are not set, for display.
_UNSET = {
    "default": "the bridge that carries the host's default route, else nat",
    "run_as": "QEMU runs as the user who starts it",
    "uplink": "none: a segment of its own",
    "subnet": "a /24 that no route of the host overlaps",
    "subnet6": "a /64 of the host's own ULAs, where the host has IPv6",
    "dns": "the host's own servers",
    "hosts": "none but the guests",
    "mac_filter": "true on nat and host-only, false on a bridge",
    "ip_filter": "as mac_filter",
    "addresses": "whatever is free",
    "tftp": "none: no TFTP server",
    "bootfile": "none: DHCP names no boot file",
    "host_services": "DHCP, DNS and ping where a firewall of the host closes the rest; else all",
    "forward_delay": "0; with stp the kernel's 15",
    "hello_time": "the kernel's 2",
}


class Setting(Record):
    """The value of one key of a network, or of the top of the file if `network` is empty."""

    network: str
    key: str
    value: object  # None: not set
    source: str  # FILE:LINE, an option such as --network, or `default`

    @property
    def text(self) -> str:
        """The setting as a line of TOML; a comment when it is not set."""
        if self.value is None:
            return f"# {self.key}: {_UNSET.get(self.key, 'not set')}"
        return f"{self.key} = {_toml(self.value)}"


def settings(
    config: Config, networks: Iterable[Network], chosen: str, text: str
) -> tuple[Setting, ...]:
    """Return all settings: CONFIG was parsed from TEXT, NETWORKS are all networks.

    CHOSEN is the value of --network, which overrides the configured default.
    """
    data = tomllib.loads(text)
    tables = data.get("networks", {})

    def source(name: str, key: str) -> str:
        inside = tables.get(name, {}) if name else data
        path = f"networks.{name}.{key}" if name else key
        return f"{config.path}:{line_of(text, path)}" if key in inside else DEFAULT

    where = "--network" if chosen else source("", "default")
    found = [
        Setting("", "default", chosen or config.default or None, where),
        Setting("", "bind_group", config.bind_group, source("", "bind_group")),
        Setting("", "uplink_helper", config.uplink_helper, source("", "uplink_helper")),
        Setting("", "run_as", config.run_as or None, source("", "run_as")),
    ]
    for network in networks:
        for key in driver(network.mode).readers():
            value = _plain(key, network.setting(key))
            found.append(Setting(network.name, key, value, source(network.name, key)))
    return tuple(found)


def _toml(value: object) -> str:
    """Return a value as one line of TOML: strings as in JSON, tables as inline tables."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    pairs = (f"{_toml(key)} = {_toml(inner)}" for key, inner in value.items())
    return f"{{ {', '.join(pairs)} }}"


def _plain(key: str, value: object) -> object:
    """Return a value as the file would have it; None if it is not set."""
    if isinstance(value, (Subnet, Prefix)):
        return str(value)
    if key == "host_services":
        return value if value is None else list(value)  # type: ignore[call-overload] # a tuple
    if key in ("hosts", "addresses") and isinstance(value, tuple):
        return dict(value) or None
    if isinstance(value, tuple):
        return list(value) or None
    return None if value == "" else value
