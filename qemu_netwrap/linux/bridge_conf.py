"""QEMU's bridge.conf, read with the files it includes."""

from __future__ import annotations

from qemu_netwrap.errors import ConfigError
from qemu_netwrap.qemu import bridge_conf

PATH = "/etc/qemu/bridge.conf"


def load(bridge: str) -> tuple[bridge_conf.Rule, ...]:
    """Return all rules, in order. BRIDGE is named in the remedy of an error.

    Raises `ConfigError` if the file is missing or invalid. Included files that are missing or
    invalid are skipped, as QEMU's helper skips them.
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
    """Return a file's rules, and its fault or ""; ABOVE are the files that include it."""
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
