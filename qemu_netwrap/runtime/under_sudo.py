"""Under sudo: which user QEMU runs as, and the user's settings that sudo does not pass on.

These are a configuration file and QEMU_NETWRAP_NETWORK. sudo(8) tells in SUDO_UID and SUDO_USER who
called it.
"""

from __future__ import annotations

import os
import pwd
import sys

from qemu_netwrap.config import file
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import session, sysctl
from qemu_netwrap.report import tell
from qemu_netwrap.runtime import users_networks
from qemu_netwrap.runtime.launch_options import NETWORK, SUDOS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.passthrough.assign import PassthroughPlan
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.runtime.launch_options import LaunchOptions
    from qemu_netwrap.runtime.plan import Plan

_SHIMS = ("qemu-system-", "qemu-kvm", "kvm")  # what qemu-netwrap is called as a shim


def settled(request: LaunchOptions) -> LaunchOptions:
    """Return REQUEST with the user that `run_as = "invoker"` means, and the configuration read.

    Without sudo, and with --run-as, nothing is read. Raises `ConfigError`, and `HostError` if sudo
    does not tell the user: QEMU must not run as root then.
    """
    is_sudo = not os.environ.keys().isdisjoint(SUDOS)
    if request.run_as or not is_sudo or os.geteuid() != 0:
        return request
    config = file.load(request.config)
    return request.replace(loaded=config, run_as=_invoker() if config.run_as else "")


def settled_notes(request: LaunchOptions) -> tuple[str, ...]:
    """Return a note if REQUEST, which is settled, runs QEMU as the user who called sudo."""
    if request.loaded is None or not request.run_as:
        return ()
    return (f"QEMU runs as {request.run_as}: run_as in {request.loaded.path}",)


def _invoker() -> str:
    """Return the name of the user who called sudo; "" if that is root. Raises `HostError`."""
    name, uid = (os.environ.get(variable, "") for variable in ("SUDO_USER", "SUDO_UID"))
    try:
        if name and str(pwd.getpwnam(name).pw_uid) == uid:
            return "" if uid == "0" else name
    except KeyError:
        pass
    raise HostError(
        f'run_as = "invoker": SUDO_USER={_shown(name)} and SUDO_UID={_shown(uid)} are no user',
        "call it by sudo itself, or name the user: --run-as USER",
    )


def tell_root(
    request: LaunchOptions,
    reading: NetworkOptions | None = None,
    draft: Plan | None = None,
    passing: PassthroughPlan | None = None,
) -> None:
    """Tell on a terminal, unless REQUEST is quiet, that QEMU runs as root, and how it need not.

    READING, DRAFT and PASSING are of the launch's networks, None if it has none.
    """
    user = _caller()
    if request.run_as or request.quiet or user is None or os.geteuid() != 0 or not os.isatty(2):
        return
    if os.path.basename(sys.argv[0]).startswith(_SHIMS):  # it has no options of its own
        way = f'run_as = "invoker" in {file.SYSTEM} runs it as {_shown(user.pw_name)}'
    else:
        way = f"--run-as {_shown(user.pw_name)} runs it as that user"
    if passing is None and not _needs_host(reading, draft):
        way += "; or leave out sudo: this launch needs no root"
    tell(f"QEMU runs as root: {way}")


def _needs_host(reading: NetworkOptions | None, draft: Plan | None) -> bool:
    """Whether an ordinary user would be refused what is planned: it is a part of the host."""
    if reading is None or draft is None:
        return False
    if not draft.nics:
        return reading.line.may_set_up_taps  # by QEMU itself
    try:
        users_networks.check(draft.wanted)
    except HostError:
        return True
    ports = [forward.port for planned in draft.nics for forward in planned.nic.forwards]
    closed = bool(ports) and min(ports) < sysctl.open_from()
    return closed or any(planned.nic.foreign for planned in draft.nics)


def _caller() -> pwd.struct_passwd | None:
    """Return the user who called sudo; None if that is root, or not told."""
    uid = os.environ.get("SUDO_UID", "")
    if not uid.isdecimal() or int(uid) == 0:
        return None
    try:
        return pwd.getpwuid(int(uid))
    except (KeyError, OverflowError):
        return None


def notes(request: LaunchOptions) -> tuple[str, ...]:
    """Return a line for each user's setting that has no effect, with the option to use instead."""
    return tuple(note for note in (_configuration(request), _network(request)) if note)


def _configuration(request: LaunchOptions) -> str:
    """Return the note on the user's configuration file; "" if it is read, or missing."""
    user = _caller()
    if request.config or os.geteuid() != 0 or user is None:
        return ""
    path = file.users(session.before_sudo().get("XDG_CONFIG_HOME", ""), user.pw_dir)
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
