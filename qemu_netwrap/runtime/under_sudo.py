"""What a user has set and sudo does not hand on: a configuration, a network in the environment."""

from __future__ import annotations

import os
import pwd

from qemu_netwrap.config import file
from qemu_netwrap.linux import session
from qemu_netwrap.runtime.launch_options import NETWORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.runtime.launch_options import LaunchOptions


def notes(request: LaunchOptions) -> tuple[str, ...]:
    """Return a line for each setting of the user's that REQUEST does without, with its option."""
    return tuple(note for note in (_configuration(request), _network(request)) if note)


def _configuration(request: LaunchOptions) -> str:
    """Return what to say of the user's configuration file; nothing where it is read, or missing."""
    uid = os.environ.get("SUDO_UID", "")
    if request.config or os.geteuid() != 0 or not uid.isdecimal():
        return ""
    try:
        home = pwd.getpwuid(int(uid)).pw_dir
    except (KeyError, OverflowError):
        return ""
    path = file.users(session.before_sudo().get("XDG_CONFIG_HOME", ""), home)
    if path in file.usual() or not os.path.exists(path):
        return ""
    shown = _shown(path)
    return f"{shown} is not read under sudo; --config {shown} reads it"


def _network(request: LaunchOptions) -> str:
    """Return what to say of the network in the user's environment; nothing where it counts."""
    chosen = session.before_sudo().get(NETWORK, "")
    if request.network or not chosen or os.environ.get(NETWORK):
        return ""
    shown = _shown(chosen)
    return f"{NETWORK}={shown} is not passed on by sudo; --network {shown} does the same"


def _shown(text: str) -> str:
    """Return what an ordinary user has written as it may reach root's terminal."""
    return text if text.isprintable() else ascii(text)
