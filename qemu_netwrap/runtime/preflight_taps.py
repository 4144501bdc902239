"""Checks of the taps, helpers and scripts of netdevs that QEMU sets up itself."""

from __future__ import annotations

import os

from qemu_netwrap.linux import qemu_files, tap_facts
from qemu_netwrap.qemu.network_options import faults, read
from qemu_netwrap.report import tell
from qemu_netwrap.runtime.network_choice import DEFAULT_BRIDGE
from qemu_netwrap.runtime.tap_warnings import TapFacts, scripts, warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.users import User
    from qemu_netwrap.qemu.command_line import CommandLine
    from qemu_netwrap.qemu.netdev_options import NetOption

_KINDS = ("tap", "bridge")
MACVTAP = "/dev/tap%d"  # in a QEMU that opens a macvtap by its name, since 10.0


def check(line: CommandLine, user: User | None, program: str, *, alone: bool) -> None:
    """Print what QEMU (PROGRAM, run as USER or else as this user) will fail to set up by itself.

    With ALONE, QEMU has to set up all its netdevs.
    """
    reading = read(line, {})
    if any(faults(reading)):
        return  # QEMU's own message says what is wrong
    spawn_denied = spawning_is_denied(line)
    for net in reading.netdevs:
        left = alone or reading.is_user_managed(net) or net.has("ifname")
        if net.type in _KINDS and not net.is_ours and left:
            try:
                seen = _look(net, user, program, alone=alone)
            except OSError:
                continue  # what cannot be checked is left to QEMU's own message
            if not (alone or reading.is_user_managed(net) or seen.is_there):
                continue  # the tap is made for QEMU
            seen = seen.replace(forbids_programs=spawn_denied)
            for what in warnings(net, seen):
                tell(f"{net.option.typed}: {what}")


def spawning_is_denied(line: CommandLine) -> bool:
    """Whether QEMU's own sandbox keeps it from starting scripts and helpers."""
    return any("spawn=deny" in (option.value or "") for option in line.named("sandbox"))


def _look(net: NetOption, user: User | None, program: str, *, alone: bool) -> TapFacts:
    """Return the facts about what one netdev needs on the host; PROGRAM is QEMU's path."""
    uid = user.uid if user else os.geteuid()
    fields: dict[str, object] = {}
    if net.value("ifname"):
        fields |= tap_facts.interface(net.value("ifname"))
    helper = net.value("helper")
    if alone and net.type == "bridge" and not helper:
        helper = tap_facts.default_helper(program)
    if helper:
        fields |= _helper(helper, net.value("br") or DEFAULT_BRIDGE, uid, user)
    if fields.get("is_macvtap"):
        fields["opens_macvtap"] = qemu_files.is_in(program, MACVTAP)
    return TapFacts(
        uid=uid,
        privileged=uid == os.geteuid() and tap_facts.has_net_admin(),
        scripts_missing=tap_facts.missing(scripts(net)),
        no_tun=tap_facts.why_no_tun(),
        no_vhost=tap_facts.why_no_vhost(),
        **fields,  # type: ignore[arg-type] # each has its type where it is looked for
    )


def _helper(path: str, bridge: str, uid: int, user: User | None) -> dict[str, object]:
    """Return the facts about QEMU's bridge helper, as fields of `TapFacts`."""
    fields = tap_facts.helper(path, bridge, uid)
    if fields and uid != 0 and (user is not None or tap_facts.has_no_new_privileges()):
        fields |= {"helper_may": False, "gains_nothing": True}
    return fields
