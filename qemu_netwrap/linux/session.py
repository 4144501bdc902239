"""The interfaces that the user reaches this host by: default routes, and the SSH session."""

from __future__ import annotations

import os

from qemu_netwrap.linux import files, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def default_devices() -> set[str]:
    """Return the interfaces of the default routes in the main tables, of either family.

    proc(5): in /proc/net/route destination and mask are words 2 and 8 of a line, in ipv6_route
    destination and prefix length the first two; reject routes are lo's.
    """
    four = (line.split() for line in files.read("/proc/net/route").splitlines()[1:])
    six = (line.split() for line in files.read("/proc/net/ipv6_route").splitlines())
    found = {words[0] for words in four if words[1] == words[7] == "00000000"}
    found |= {words[-1] for words in six if words[0] == "0" * 32 and words[1] == "00"}
    return found - {"lo"}


def server_address() -> str:
    """Return this host's address in the SSH session of this process; empty without one.

    sshd sets it in SSH_CONNECTION. sudo drops that, but the processes above still have it.
    """
    for environment in _environments():
        words = environment.get("SSH_CONNECTION", "").split()
        if len(words) == 4:
            return words[2].partition("%")[0]
    return ""


def before_sudo() -> dict[str, str]:
    """Return the environment that sudo was called in; empty without sudo, or if not shown."""
    if "SUDO_UID" not in os.environ:
        return {}
    return next((found for found in _environments() if "SUDO_UID" not in found), {})


def _environments() -> Iterator[dict[str, str]]:
    """Yield the environments of this process and those above it, as far as they are shown."""
    for pid in proc.lineage(os.getpid()):
        environment = proc.environment(pid)
        if environment is None:
            return
        yield environment
