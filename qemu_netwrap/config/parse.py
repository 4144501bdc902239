"""The configuration: TOML text to `Config`, every mistake told with its file and line."""

from __future__ import annotations

import tomllib

from qemu_netwrap.config.toml_position import line_of
from qemu_netwrap.errors import ConfigError
from qemu_netwrap.model import addresses, host_services, names, pxe, reservations
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import LENGTH, Prefix
from qemu_netwrap.model.network import BRIDGE, HOST_ONLY, NAT, Config, Network
from qemu_netwrap.model.suggest import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

TOP = ("default", "bind_group", "networks")
_DIGITS = 4300  # of the longest number that Python reads (sys.get_int_max_str_digits)
_SHOWN = 200  # characters of a wrong value in a hint
MODES = (BRIDGE, NAT, HOST_ONLY)
LARGEST = 8
_NOT_FOR_HOSTS6 = tuple(map(Prefix.parse, ("::/8", "fe80::/10", "fec0::/10", "ff00::/8")))
_NOT_FOR_HOSTS = tuple(map(Subnet.parse, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))
SMALLEST = 29  # a subnet with fewer addresses has none left for guests worth a network


class _At:
    """Where in the file something is, so that a mistake can be told with its line."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path

    def error(self, table: str, key: str, what: str, hint: str) -> ConfigError:
        """Return the error for KEY in [TABLE] (empty: the top of the file; no key: the header)."""
        where = f"{table}.{key}" if table and key else table or key
        return ConfigError(f"{self.path}:{line_of(self.text, where)}: {where}: {what}", hint)


def parse(text: str, path: str) -> Config:
    """Read a configuration. PATH is for messages. Raises `ConfigError`."""
    at = _At(text, path)
    data = _loaded(text, path)
    for key in data:
        if key not in TOP:
            raise at.error(*_place(key, data[key]), "unknown key", _known_here(key, TOP))
    tables = data.get("networks", {})
    if not isinstance(tables, dict):
        raise at.error("", "networks", "expected tables", "write [networks.NAME]")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise at.error("networks", name, "expected a table", f"write [networks.{name}]")
    networks = tuple(_network(name, table, at) for name, table in tables.items())
    _check_bridges(networks, at)
    default = data.get("default", "")
    known = sorted({*tables, NAT, HOST_ONLY})
    hint = f"known networks: {', '.join(known)}"
    if not isinstance(default, str):
        raise at.error("", "default", "expected a string", hint)
    if default and default not in known:
        near = suggestion(default, known)
        raise at.error("", "default", f"there is no network {default!r}", f"{near}{hint}")
    bind_group = data.get("bind_group", False)
    if not isinstance(bind_group, bool):
        raise at.error(
            "", "bind_group", "expected true or false", f"it is now {_shown(bind_group)}"
        )
    return Config(default, networks, path, bind_group)


def _loaded(text: str, path: str) -> dict[str, Any]:
    """Return the tables of TOML text. Raises `ConfigError`."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        what, _, place = str(error).rpartition(" (at ")
        line = place.removeprefix("line ").partition(",")[0]
        number = line if line.isdigit() else _last_line(text)
        if not isinstance(error, tomllib.TOMLDecodeError):
            what = "a number has too many digits, or tables are nested too deeply"
        raise ConfigError(f"{path}:{number}: {what or error}", "this is no TOML") from None


def _last_line(text: str) -> int:
    """Return the line of a number that Python does not read, else the line after the last."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _DIGITS:
            return number
    return text.count("\n") + 1


def _place(key: str, value: object) -> tuple[str, str]:
    """Return table and key of something at the top of the file, as `_At.error` wants them."""
    if not isinstance(value, dict):
        return "", key
    inner = next(iter(value.items()), ("", None))
    return (f"{key}.{inner[0]}" if isinstance(inner[1], dict) else key), ""


def _known_here(key: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown key."""
    return f"{suggestion(key, known)}known here: {', '.join(known)}"


def _network(name: str, table: dict[str, object], at: _At) -> Network:
    """Read one [networks.NAME]."""
    where = f"networks.{name}"
    wrong = names.network_name_fault(name)
    if wrong:
        raise at.error(where, "", f"the name {wrong}", "rename the network")
    for key in table:
        if key not in KEYS:
            raise at.error(where, key, "unknown key", _known_here(key, KEYS))
    mode = table.get("mode")
    if mode not in MODES:
        what = "is missing" if mode is None else f"{_shown(mode)} is no mode"
        near = suggestion(mode, MODES) if isinstance(mode, str) else ""
        raise at.error(where, "mode", what, f"{near}one of: {', '.join(MODES)}")
    fields: dict[str, object] = {"mode": mode, "bridge": names.bridge_name(name)}
    for key, value in table.items():
        only, read = KEYS[key]
        if mode not in only:
            raise at.error(where, key, f"is not for mode {mode}", f"it is for: {', '.join(only)}")
        try:
            fields[key] = read(value)
        except ValueError as error:
            raise at.error(where, key, str(error), f"it is now {_shown(value)}") from None
    # Who configures an uplink has thought of what it takes.
    fields["agreed"] = "uplink" in table
    return _checked(Network(name, **fields), at)  # type: ignore[arg-type] # by the readers


def _checked(network: Network, at: _At) -> Network:
    """Check what concerns more than one key."""
    where = f"networks.{network.name}"
    if network.stp and network.forward_delay is not None and network.forward_delay < 2:
        raise at.error(
            where, "forward_delay", "with STP it is at least 2 seconds", "or leave out stp = true"
        )
    wrong = reservations.fault(network)
    if wrong:
        raise at.error(where, "addresses", wrong, "they are of the network's subnet")
    if network.subnet6 is not None and not network.ipv6:
        raise at.error(where, "subnet6", "with ipv6 = false there is none", "leave out one of them")
    return network


def _check_bridges(networks: tuple[Network, ...], at: _At) -> None:
    """Refuse two networks on one bridge, the built-in ones among them."""
    names_ = {network.name for network in networks}
    owners = {names.bridge_name(mode): mode for mode in (NAT, HOST_ONLY) if mode not in names_}
    for network in networks:
        twin = owners.setdefault(network.bridge, network.name)
        if twin != network.name:
            what = f"{network.bridge} is the bridge of network {twin} already"
            raise at.error(f"networks.{network.name}", "bridge", what, "give it one of its own")


def _shown(value: object) -> str:
    """Return a value as a hint shows it, cut where it is long; Python writes no 5,000 digits."""
    try:
        text = repr(value)
    except ValueError:
        text = "a very long number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - a value, not a call, is wrong
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")  # noqa: TRY004
    return value


def _ifname(value: object) -> str:
    name = _string(value)
    wrong = names.ifname_fault(name)
    if wrong or not names.plain_ifname(name):
        raise ValueError(f"the name {wrong or 'must be of letters, digits, - . and _'}")
    return name


def _uplink(value: object) -> str:
    name = _string(value)
    wrong = names.ifname_fault(name)
    if wrong:
        raise ValueError(f"the name {wrong}")
    return name


def _seconds(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected whole seconds from {low} to {high}")
        return value

    return read


def _subnet(value: object) -> Subnet:
    subnet = Subnet.parse(_string(value))
    if not LARGEST <= subnet.length <= SMALLEST:
        small = f"too small: /{SMALLEST} at least"
        large = f"too large: /{LARGEST} at most"
        raise ValueError(f"the subnet is {small if subnet.length > SMALLEST else large}")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise ValueError("these addresses are not for hosts")
    return subnet


def _subnet6(value: object) -> Prefix:
    try:
        prefix = Prefix.parse(_string(value).replace("%", "%%"))  # no scope is part of a network
    except ValueError as error:
        raise ValueError(f"expected a network like fd12:3456:789a:1::/64: {error}") from None
    if prefix.length != LENGTH:
        raise ValueError(f"expected a /{LENGTH}: guests choose the rest of their addresses")
    if any(prefix.overlaps(special) for special in _NOT_FOR_HOSTS6):
        raise ValueError("these addresses are not for hosts")
    return prefix


def _servers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(server, str) for server in value):
        raise ValueError('expected addresses like ["192.0.2.53"]')
    return tuple(addresses.read(server, scoped=True) for server in value)


def _hosts(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError('expected names with addresses, like { files = "192.0.2.9" }')
    for name in value:
        if not names.is_host_name(name) or name.replace(".", "").isdigit():
            raise ValueError(f"{name!r} is no host name")
    return tuple((name, addresses.read(address)) for name, address in value.items())


_ROUTED = (NAT, HOST_ONLY)
# Key: the modes it is for, and how its value is read (`ValueError` says what was expected).
KEYS: dict[str, tuple[tuple[str, ...], Callable[[object], object]]] = {
    "mode": (MODES, _string),
    "bridge": (MODES, _ifname),
    "stp": (MODES, _boolean),
    "forward_delay": (MODES, _seconds(0, 30)),
    "hello_time": (MODES, _seconds(1, 10)),
    "isolated": (MODES, _boolean),
    "mac_filter": (MODES, _boolean),
    "ip_filter": (MODES, _boolean),
    "uplink": ((BRIDGE,), _uplink),
    "subnet": (_ROUTED, _subnet),
    "ipv6": (_ROUTED, _boolean),
    "subnet6": (_ROUTED, _subnet6),
    "dns": ((NAT,), _servers),
    "hosts": (_ROUTED, _hosts),
    "addresses": (_ROUTED, reservations.read),
    "host_services": (_ROUTED, host_services.read),
    "tftp": (_ROUTED, pxe.folder),
    "bootfile": (_ROUTED, pxe.file),
}
