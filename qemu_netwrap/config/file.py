"""Finding and reading the configuration file."""

from __future__ import annotations

import os

from qemu_netwrap import config, linux
from qemu_netwrap.errors import ConfigError
from qemu_netwrap.model.network import Config

SYSTEM = "/etc/qemu-netwrap/config.toml"


def load(path: str = "") -> Config:
    """Return the configuration in PATH, else in the first usual file that exists, else empty.

    Raises `ConfigError` for a file that cannot be read or is invalid.
    """
    found = find(path)
    if not found:
        return Config()
    text = read(found, named=bool(path))
    # Loading the TOML parser takes as long as a whole launch: only do it for a file.

    return config.parse.parse(text, found)


def find(path: str = "") -> str:
    """Return the file to read: PATH, else the first usual one that exists, else ""."""
    return path or next((p for p in usual() if os.path.exists(p)), "")


def read(path: str, *, named: bool) -> str:
    """Return a configuration's text; NAMED: the user gave its path, it is not a usual one.

    Raises `ConfigError` for a file that cannot be read, or that root must not trust.
    """
    try:
        with open(path, "rb") as file:
            linux.trust.check(path, file.fileno(), named=named)
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        what = error.strerror or str(error)
        raise ConfigError(f"{path}: {what}", "name a file that can be read") from error
    except ValueError as error:
        raise ConfigError(f"{path!r}: {error}", "name a file that can be read") from None


def usual() -> tuple[str, ...]:
    """Return the usual paths of configurations; the first that exists is used."""
    own = users(os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME", "/root"))
    return own, SYSTEM


def users(folder: str, home: str) -> str:
    """Return the configuration file of a user with that HOME; FOLDER is XDG_CONFIG_HOME.

    A folder that is not absolute is ignored, as the XDG specification requires: otherwise the
    current folder could supply the file.
    """
    folders = (folder, os.path.join(home, ".config"), os.path.join("/root", ".config"))
    own = next(each for each in folders if os.path.isabs(each))
    return os.path.join(own, "qemu-netwrap/config.toml")
