"""Before QEMU sets up netdevs in the user's own way: what it will stumble over."""

from __future__ import annotations

import os

from qemu_netwrap.host import sight
from qemu_netwrap.life.telling import tell
from qemu_netwrap.planning.foresight import Sight, foresee
from qemu_netwrap.planning.networks import DEFAULT_BRIDGE
from qemu_netwrap.planning.reading import NO_SCRIPT, SCRIPTS, faults, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.netoption import NetOption
    from qemu_netwrap.core.words import CommandLine
    from qemu_netwrap.host.users import User

_KINDS = ("tap", "bridge")


def foretell(line: CommandLine, user: User | None) -> None:
    """Say what QEMU, run as USER or else as oneself, will not manage with what is left to it."""
    reading = read(line, {})
    if any(faults(reading)):
        return  # QEMU's own message says what is wrong
    spawn_denied = spawning_is_denied(line)
    for net in reading.netdevs:
        left = reading.is_left_alone(net) or net.has("ifname")
        if net.type in _KINDS and not net.is_ours and left:
            try:
                seen = _look(net, user).replace(forbids_programs=spawn_denied)
            except OSError:
                continue  # what cannot be seen is not told; QEMU will
            for what in foresee(net, seen):
                tell(f"{net.option.typed}: {what}")


def spawning_is_denied(line: CommandLine) -> bool:
    """Whether QEMU's own sandbox keeps it from starting scripts and helpers."""
    return any("spawn=deny" in (option.value or "") for option in line.named("sandbox"))


def _look(net: NetOption, user: User | None) -> Sight:
    """Look at what one netdev needs of the host."""
    uid = user.uid if user else os.geteuid()
    fields: dict[str, object] = {}
    if net.value("ifname"):
        fields |= sight.interface(net.value("ifname"))
    if net.value("helper"):
        fields |= sight.helper(net.value("helper"), net.value("br") or DEFAULT_BRIDGE, uid)
        if uid != 0 and (user is not None or sight.has_no_new_privileges()):
            fields |= {"helper_may": False, "gains_nothing": True} if fields else {}
    scripts = tuple(net.value(key) for key in SCRIPTS if net.value(key) not in NO_SCRIPT)
    return Sight(
        uid=uid,
        privileged=uid == os.geteuid() and sight.has_net_admin(),
        scripts_missing=sight.missing(scripts),
        has_vhost=sight.has_vhost(),
        **fields,  # type: ignore[arg-type] # each has its type where it is looked for
    )
