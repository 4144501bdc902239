"""Finding and reading the configuration file."""

from __future__ import annotations

import os

from qemu_netwrap.core.errors import ConfigError
from qemu_netwrap.core.model import Config

SYSTEM = "/etc/qemu-netwrap/config.toml"


def load(path: str = "") -> Config:
    """Read the configuration of PATH, else of the first usual file that is there, else none.

    Raises `ConfigError` for a file that cannot be read or is wrong.
    """
    found = path or next((p for p in usual() if os.path.exists(p)), "")
    if not found:
        return Config()
    try:
        with open(found, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise ConfigError(f"{found}: {error.strerror}", "name a file that can be read") from error
    # Reading TOML costs as much as a whole launch: only when there is some.
    from qemu_netwrap.core import config

    return config.parse(raw.decode("utf-8", "replace"), found)


def usual() -> tuple[str, ...]:
    """Return where configurations are looked for, the first found wins."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(
        os.environ.get("HOME", "/root"), ".config"
    )
    return os.path.join(home, "qemu-netwrap/config.toml"), SYSTEM
