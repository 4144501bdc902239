"""The checks of `doctor`: it collects facts about the host and rates them, changing nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qemu_netwrap import realm
from qemu_netwrap.config import file
from qemu_netwrap.doctor import probe
from qemu_netwrap.doctor.checks import diagnose
from qemu_netwrap.errors import ConfigError, HostError
from qemu_netwrap.linux import devices, dhcp_probe
from qemu_netwrap.model.network import Config
from qemu_netwrap.resources.base import Context
from qemu_netwrap.runtime import membership, status, strays
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from qemu_netwrap.doctor.checks import Line


def checkup() -> tuple[Line, ...]:
    """Collect facts about the host and return them rated.

    For an ordinary user, facts of the host come first: then the user's realm is entered.
    """
    seen = probe.look(None)
    if realm.is_users():
        seen = probe.look_as_user(seen, _wanted_helper())
        StateDir.to_look("doctor")
    return diagnose(seen.replace(leftovers=leftovers(), faults=faults()))


def _wanted_helper() -> str:
    """Return the `uplink_helper` of the configuration; its default if that cannot be read."""
    try:
        return file.load().uplink_helper
    except ConfigError:
        return Config().uplink_helper  # `config check` tells what is wrong with it


def leftovers() -> tuple[str, ...] | None:
    """Return what dead runs have left; None if the user may not read it, as all but root."""
    state = StateDir.here()
    try:
        runs = [f"run {run}" for run in state.runs() if not state.is_alive(run)]
        work = Context(state)
        unused = [
            f"network on {bridge}"
            for bridge in state.networks()
            if not membership.is_kept(bridge, work)
            and not any(state.is_alive(run) for run in membership.members(bridge, work))
        ]
    except PermissionError:
        return None
    if os.geteuid():
        return (*runs, *unused)
    has_nft = devices.driver("nf_tables") == devices.LOADED
    return (*runs, *unused, *(str(stray) for stray in strays.find(work, has_nft=has_nft)))


def faults() -> tuple[tuple[str, str, bool], ...]:
    """Return (network, fault, whether a joining run repairs it); () if the user may not read it."""
    try:
        shown = status.all_networks(StateDir.here())
    except PermissionError:
        return ()
    seen = [
        (network.name, fault.removesuffix(status.REMEDY), fault.endswith(status.REMEDY))
        for network in shown
        for fault in network.faults
    ]
    dropped = [(network.name, fault, False) for network in shown for fault in _dropped(network)]
    return (*seen, *dropped)


def _dropped(network: status.NetworkStatus) -> tuple[str, ...]:
    """Return which DHCP packets the host's firewalls drop, tried on a network that is up."""
    if os.geteuid() or not network.dnsmasq:
        return ()
    try:
        asked, answered = dhcp_probe.probe(network.bridge, network.address.partition("/")[0])
    except (OSError, HostError):
        return ()  # other lines report what this host lacks for the probe
    where = f"{network.bridge}; see nft list ruleset and iptables-save"
    return (
        *([] if asked else [f"a firewall drops guests' DHCP: let UDP port 67 in from {where}"]),
        *([] if answered else [f"a firewall drops DHCP's answers: let UDP port 68 out by {where}"]),
    )
