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
    found = find(path)
    if not found:
        return Config()
    text = read(found)
    # Reading TOML costs as much as a whole launch: only when there is some.
    from qemu_netwrap.core import config

    return config.parse(text, found)


def find(path: str = "") -> str:
    """Return the file that is read: PATH, else the first usual one that is there, else empty."""
    return path or next((p for p in usual() if os.path.exists(p)), "")


def read(path: str) -> str:
    """Return a configuration's text. Raises `ConfigError` for a file that cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name a file that can be read") from error


def usual() -> tuple[str, ...]:
    """Return where configurations are looked for, the first found wins."""
    own = users(os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME", "/root"))
    return own, SYSTEM


def users(folder: str, home: str) -> str:
    """Return the configuration file of a user with that HOME, and FOLDER for XDG_CONFIG_HOME."""
    return os.path.join(folder or os.path.join(home, ".config"), "qemu-netwrap/config.toml")
