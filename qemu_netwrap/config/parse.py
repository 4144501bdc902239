"""Parsing the configuration: TOML text to `Config`, with file and line in each error."""

from __future__ import annotations

import tomllib

from qemu_netwrap.config.toml_position import line_of
from qemu_netwrap.errors import ConfigError
from qemu_netwrap.model import names, reservations
from qemu_netwrap.model.network import INVOKER, MODES, UPLINK_HELPERS, Config, Network, types
from qemu_netwrap.model.suggest import suggestion
from qemu_netwrap.networks.base import driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

TOP = ("default", "bind_group", "uplink_helper", "run_as", "networks")
_DIGITS = 4300  # of the longest number that Python parses (sys.get_int_max_str_digits)
_SHOWN = 200  # characters of a wrong value in a hint


class _At:
    """Makes errors that contain the line of a key in the file."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path

    def error(self, table: str, key: str, what: str, hint: str) -> ConfigError:
        """Return the error for KEY in [TABLE] (TABLE "": top of the file; KEY "": the header)."""
        where = f"{table}.{key}" if table and key else table or key
        return ConfigError(f"{self.path}:{line_of(self.text, where)}: {where}: {what}", hint)


def parse(text: str, path: str) -> Config:
    """Parse a configuration. PATH is for messages. Raises `ConfigError`."""
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
    described = tuple(_network(name, table, at) for name, table in tables.items())
    _check_bridges(described, at)
    default = data.get("default", "")
    known = sorted({*tables, *types()})
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
    helper = data.get("uplink_helper", UPLINK_HELPERS[0])
    if helper not in UPLINK_HELPERS:
        near = suggestion(helper, UPLINK_HELPERS) if isinstance(helper, str) else ""
        what = f"expected one of: {', '.join(UPLINK_HELPERS)}"
        raise at.error("", "uplink_helper", what, f"{near}it is now {_shown(helper)}")
    return Config(default, described, path, bind_group, helper, _run_as(data, at))


def _run_as(data: dict[str, Any], at: _At) -> str:
    """Return whom QEMU runs as, `INVOKER` or "". Raises `ConfigError`."""
    run_as = data.get("run_as", "")
    if run_as not in ("", INVOKER):
        hint = f"it is now {_shown(run_as)}; for one launch: --run-as"
        raise at.error("", "run_as", f'expected "{INVOKER}"', hint)
    return INVOKER if run_as else ""


_SYNTAX = 'the file is not valid TOML: texts need quotes, as in mode = "bridge"'


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
        raise ConfigError(f"{path}:{number}: {what or error}", _SYNTAX) from None


def _last_line(text: str) -> int:
    """Return the line of a number too long for Python, else that after the last newline."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _DIGITS:
            return number
    return text.count("\n") + 1


def _place(key: str, value: object) -> tuple[str, str]:
    """Return (table, key) of a KEY at the top of the file, for `_At.error`."""
    if not isinstance(value, dict):
        return "", key
    inner = next(iter(value.items()), ("", None))
    return (f"{key}.{inner[0]}" if isinstance(inner[1], dict) else key), ""


def _known_here(key: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown key."""
    return f"{suggestion(key, known)}known here: {', '.join(known)}"


def keys() -> dict[str, tuple[str, ...]]:
    """Return every key of [networks.NAME] with the modes that have it. Loads all drivers."""
    found: dict[str, tuple[str, ...]] = {}
    for mode in MODES:
        for key in driver(mode).readers():
            found[key] = (*found.get(key, ()), mode)
    return found


def _network(name: str, table: dict[str, object], at: _At) -> Network:
    """Parse one [networks.NAME]. Raises `ConfigError`."""
    where = f"networks.{name}"
    wrong = names.network_name_fault(name)
    if wrong:
        raise at.error(where, "", f"the name {wrong}", "rename the network")
    mode = table.get("mode")
    is_mode = isinstance(mode, str) and mode in MODES
    readers = driver(mode).readers() if isinstance(mode, str) and is_mode else {}
    for key in table:
        if key not in readers and key not in (known := keys()):
            raise at.error(where, key, "unknown key", _known_here(key, known))
    if not is_mode:
        what = "is missing" if mode is None else f"{_shown(mode)} is no mode"
        near = suggestion(mode, MODES) if isinstance(mode, str) else ""
        raise at.error(where, "mode", what, f"{near}one of: {', '.join(MODES)}")
    fields: dict[str, object] = {"mode": mode, "bridge": names.bridge_name(name)}
    own: list[tuple[str, object]] = []
    for key, value in table.items():
        if key not in readers:
            only = ", ".join(keys()[key])
            raise at.error(where, key, f"is not for mode {mode}", f"it is for: {only}")
        try:
            read = readers[key](value)
        except ValueError as error:
            raise at.error(where, key, str(error), f"it is now {_shown(value)}") from None
        if key in Network.fields:
            fields[key] = read
        else:
            own.append((key, read))
    # An uplink in the configuration counts as consent, like --yes-uplink.
    fields["agreed"] = "uplink" in table
    fields["own"] = tuple(own)
    return _checked(Network(name, **fields), at)  # type: ignore[arg-type] # by the readers


def _checked(network: Network, at: _At) -> Network:
    """Return NETWORK. Raises `ConfigError` for keys that contradict each other."""
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


def _check_bridges(described: tuple[Network, ...], at: _At) -> None:
    """Raise `ConfigError` for two networks on one bridge, the built-in ones included."""
    names_ = {network.name for network in described}
    owners = {names.bridge_name(mode): mode for mode in types() if mode not in names_}
    for network in described:
        twin = owners.setdefault(network.bridge, network.name)
        if twin != network.name:
            what = f"{network.bridge} is the bridge of network {twin} already"
            raise at.error(f"networks.{network.name}", "bridge", what, "give it one of its own")


def _shown(value: object) -> str:
    """Return a value for a hint, shortened if long; Python's `repr` fails at 5,000 digits."""
    try:
        text = repr(value)
    except ValueError:
        text = "a very long number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
