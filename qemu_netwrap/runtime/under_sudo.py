"""The user's settings that sudo does not pass on: a configuration file, QEMU_NETWRAP_NETWORK."""

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
    """Return a line for each user's setting that has no effect, with the option to use instead."""
    return tuple(note for note in (_configuration(request), _network(request)) if note)


def _configuration(request: LaunchOptions) -> str:
    """Return the note on the user's configuration file; "" if it is read, or missing."""
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
    """Return the note on the network in the user's environment; "" if it is in effect or unset."""
    chosen = session.before_sudo().get(NETWORK, "")
    if request.network or not chosen or os.environ.get(NETWORK):
        return ""
    shown = _shown(chosen)
    return f"{NETWORK}={shown} is not passed on by sudo; --network {shown} does the same"


def _shown(text: str) -> str:
    """Return an ordinary user's text, made safe to print on root's terminal."""
    return text if text.isprintable() else ascii(text)
