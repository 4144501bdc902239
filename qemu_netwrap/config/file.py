"""Finding and reading the configuration file."""

from __future__ import annotations

import os

from qemu_netwrap import config, linux
from qemu_netwrap.errors import ConfigError
from qemu_netwrap.model.network import Config

SYSTEM = "/etc/qemu-netwrap/config.toml"


def load(path: str = "") -> Config:
    """Read the configuration of PATH, else of the first usual file that is there, else none.

    Raises `ConfigError` for a file that cannot be read or is wrong.
    """
    found = find(path)
    if not found:
        return Config()
    text = read(found, named=bool(path))
    # Reading TOML costs as much as a whole launch: only when there is some.

    return config.parse.parse(text, found)


def find(path: str = "") -> str:
    """Return the file that is read: PATH, else the first usual one that is there, else empty."""
    return path or next((p for p in usual() if os.path.exists(p)), "")


def read(path: str, *, named: bool) -> str:
    """Return a configuration's text; NAMED is one that the user has named, no usual one.

    Raises `ConfigError` for a file that cannot be read, or that root must not believe.
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
    """Return where configurations are looked for, the first found wins."""
    own = users(os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME", "/root"))
    return own, SYSTEM


def users(folder: str, home: str) -> str:
    """Return the configuration file of a user with that HOME, and FOLDER for XDG_CONFIG_HOME.

    A folder that is not absolute does not count, as the XDG specification has it: the file would
    be the current folder's.
    """
    folders = (folder, os.path.join(home, ".config"), os.path.join("/root", ".config"))
    own = next(each for each in folders if os.path.isabs(each))
    return os.path.join(own, "qemu-netwrap/config.toml")
