"""`qemu-netwrap exec`: this process becomes a command in a network's namespace, with its DNS."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from qemu_netwrap import linux, realm
from qemu_netwrap.config import file
from qemu_netwrap.errors import HostError, NotExecutableError, NotFoundError
from qemu_netwrap.linux import files, lookups, programs
from qemu_netwrap.networks.host_services import DNS_PORT
from qemu_netwrap.report import tell
from qemu_netwrap.resources.base import Context
from qemu_netwrap.runtime import inventory, launcher, membership
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from typing import NoReturn

    from qemu_netwrap.linux.inherited import Inherited
    from qemu_netwrap.runtime.launch_options import LaunchOptions

_SHELL = "/bin/sh"
_NO_NAMES = "guests' names are not resolved"


def run(name: str, request: LaunchOptions, given: Inherited) -> NoReturn:
    """Become the command of REQUEST, else a shell, on the network NAME; GIVEN is for the command.

    Raises `NetwrapError`: `UsageError` for an unknown network, `HostError` for one that is not up.
    """
    words = request.words or (os.environ.get("SHELL") or _SHELL,)
    program = _find(words[0])
    is_users = realm.is_users()
    identity = lookups.root_as_this_user() if is_users else {}
    config = file.load(request.config)
    state = StateDir.to_look("exec", looks_out=False)
    try:
        work = Context(state)
        known = inventory.find(name, inventory.inventory(config, request.network, work))
        _check_up(known)
        info = membership.read_info(work, known.bridge)
        names = _names(info, state, request) if info and info.address else {}
        if names or identity:
            _cover(identity, names, state.base, request)
    finally:
        if is_users:
            # A run that ended meanwhile has left the realm's end to who was entering.
            realm.tidy(state.base)
    if is_users:
        with contextlib.suppress(OSError):  # a nicety
            linux.setgroups.pretend()
    given.give_back()
    launcher.undo_pythons()
    _become(program, words)


def _find(name: str) -> str:
    """Return the path of a program, also of an administrator's: it has the right to use those.

    Raises `NotFoundError` or `NotExecutableError`.
    """
    path = programs.find(name, programs.SBIN)
    if path:
        return path
    if programs.exists(name):
        raise NotExecutableError(f"{name}: it cannot be executed", "look at its mode: ls -l")
    raise NotFoundError(f"{name}: there is no such program", "is it on PATH?")


def _check_up(known: inventory.NetworkSummary) -> None:
    """Raise `HostError` for a network that is not up. One on a bridge of the host's always is."""
    if known.state == inventory.FOREIGN and realm.is_system():
        return
    if known.state not in (inventory.UP, inventory.DAMAGED):
        raise HostError(
            f"network {known.name} is not up",
            f"start a guest on it, or: qemu-netwrap network up {known.name}",
        )


def _names(info: membership.NetworkInfo, state: StateDir, request: LaunchOptions) -> dict[str, str]:
    """Return the texts, by file, with which names are asked of a network's dnsmasq."""
    conf = files.peek(f"{state.network(info.bridge)}/dnsmasq.conf").splitlines()
    if any(line.startswith("port=") and line != f"port={DNS_PORT}" for line in conf):
        _warn(f"{_NO_NAMES}: port {DNS_PORT} is another DNS server's", request)
        return {}
    if request.verbose and not os.path.exists(lookups.RESOLV_CONF):
        tell(f"there is no {lookups.RESOLV_CONF} to put the network's in place of")
    return lookups.hosts(info.address.partition("/")[0], f"{info.name}.internal")


def _cover(
    identity: dict[str, str], names: dict[str, str], place: str, request: LaunchOptions
) -> None:
    """Give files the texts of both for this process, as far as they exist and the host allows."""
    try:
        linux.mounts.cover(linux.mounts.present({**identity, **names}), place)
    except OSError as error:
        effects = [_NO_NAMES] * bool(names) + ["this user has root's name"] * bool(identity)
        _warn(f"{', '.join(effects)}: nothing can be mounted here: {error.strerror}", request)


def _warn(line: str, request: LaunchOptions) -> None:
    """Print what the command lacks, unless -q was given."""
    if not request.quiet:
        tell(line)


def _become(program: str, words: tuple[str, ...]) -> NoReturn:
    """Replace this process by a program. Raises `NotExecutableError`."""
    try:
        try:
            os.execv(program, words)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without `#!` is the shell's, as for execvp(3) and so for env(1).
            os.execv(_SHELL, (_SHELL, program, *words[1:]))
    except OSError as error:
        raise NotExecutableError(f"{program}: {error.strerror}", "is it a program?") from error
