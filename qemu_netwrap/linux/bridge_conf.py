"""Reading bridge.conf with the files it includes."""

from __future__ import annotations

from qemu_netwrap.errors import ConfigError
from qemu_netwrap.qemu import bridge_conf

PATH = "/etc/qemu/bridge.conf"


def load(bridge: str) -> tuple[bridge_conf.Rule, ...]:
    """Return all rules. BRIDGE is for the remedy.

    Raises `ConfigError` when the file is not there, or wrong; mistakes of files that it includes,
    and their absence, are passed over: as QEMU's helper does.
    """
    try:
        rules, fault = _read(PATH, ())
    except OSError as error:
        raise ConfigError(
            f"{PATH}: {error.strerror}: no bridge is allowed",
            f"make it, with a line: allow {bridge}",
        ) from error
    if fault:
        raise ConfigError(f"{PATH}:{fault}", "lines are: allow BRIDGE, deny BRIDGE, include FILE")
    return rules


def _read(path: str, above: tuple[str, ...]) -> tuple[tuple[bridge_conf.Rule, ...], str]:
    """Return a file's rules and its mistake; ABOVE are the files that include it."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        acl = bridge_conf.parse(file.read())
    found: list[bridge_conf.Rule] = []
    for rule in acl.rules:
        if rule.verb != bridge_conf.INCLUDE:
            found.append(rule)
        elif rule.what not in (path, *above):
            try:
                found += _read(rule.what, (path, *above))[0]
            except OSError:
                continue
    return tuple(found), acl.fault
