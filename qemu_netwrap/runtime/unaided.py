"""What QEMU can do for an ordinary user without qemu-netwrap, by its setuid helper."""

from __future__ import annotations

import os

from qemu_netwrap.linux import host_facts, tap_facts
from qemu_netwrap.report import tell
from qemu_netwrap.runtime.network_choice import DEFAULT_BRIDGE
from qemu_netwrap.runtime.preflight_taps import spawning_is_denied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu.netdev_options import NetOption
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.runtime.launch_options import LaunchOptions

_TUN = "/dev/net/tun"


def can_do(request: LaunchOptions, reading: NetworkOptions, program: str) -> bool:
    """Whether the QEMU in PROGRAM can set up all that READING wants, run as this user.

    It can if each netdev is on a bridge into which QEMU's own helper may plug taps. READING uses no
    extensions of qemu-netwrap's.
    """
    if request.run_as or tap_facts.has_net_admin():
        return False
    if spawning_is_denied(reading.line) or tap_facts.has_no_new_privileges():
        return False
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return False  # the helper opens it as the user
    wanted = [net for net in reading.netdevs if not reading.is_user_managed(net)]
    ifnames = tuple(net.ifname for net in wanted if net.ifname)
    there = host_facts.existing(ifnames)
    bridged = [net for net in wanted if net.ifname not in there]
    helper = tap_facts.default_helper(program)
    if not bridged or not helper or not all(_is_helped(net, helper) for net in bridged):
        return False
    if not request.quiet and (request.verbose or os.isatty(2)):
        for net in bridged:
            tell(f"{net.option.typed}: left to {helper}, as this user is not root")
    return True


def _is_helped(net: NetOption, helper: str) -> bool:
    """Whether HELPER will plug a netdev's tap into its bridge."""
    if net.type != "bridge":
        return False
    seen = tap_facts.helper(helper, net.value("br") or DEFAULT_BRIDGE, os.geteuid())
    return bool(seen["helper_may"]) and not seen["acl"] and not seen["bridge"]
