"""Networks of an ordinary user: what they cannot be, and their way out."""

from __future__ import annotations

import os

from qemu_netwrap import linux, realm
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, host_facts
from qemu_netwrap.report import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.model.network import Config, Network
    from qemu_netwrap.model.run import RunSpec
    from qemu_netwrap.realm import Realm
    from qemu_netwrap.runtime.launch_options import LaunchOptions

_WAYS = (
    'sudo qemu-netwrap --run-as "$USER" -- qemu-system-x86_64 ...;'
    " or QEMU's own setuid helper, with `allow {0}` in /etc/qemu/bridge.conf;"
    " or a network that needs no root: -nic nat"
)
_NO_WAY_OUT = (
    "guests reach each other only: there is no program that leads out of a user's network;"
    " install one: apt install slirp4netns"
)


def check(wanted: RunSpec) -> None:
    """Raise `HostError` for a network that a user cannot make: one with a part of the host.

    A bridge that the host does not have is a segment among the user's own guests.
    """
    for network in wanted.networks:
        if network.uplink:
            raise HostError(
                f"network {network.name}: uplink {network.uplink} is the host's, and so root's",
                _ways(network.bridge),
            )
        if network.traits.is_plain and host_facts.existing((network.bridge,)):
            raise HostError(
                f"bridge {network.bridge} is the host's, and so root's",
                _ways(network.bridge),
            )


def _ways(bridge: str) -> str:
    """Return the ways to a network with BRIDGE; for root it is the capability that it lacks."""
    lacking = linux.remedies.privilege(linux.remedies.standing()) if os.geteuid() == 0 else None
    if lacking is not None:
        return f"{lacking}; or a network that needs none: -nic nat"
    return _WAYS.format(bridge)


def way_out_note(wanted: RunSpec, config: Config) -> tuple[str, ...]:
    """Return which program would lead guests out, as a note; none if no guest needs one."""
    if not any(network.traits.has_way_out for network in wanted.networks):
        return ()
    helper = linux.uplink_helpers.find(config.uplink_helper)
    if helper is None:
        return (_NO_WAY_OUT,)
    return (f"way out: {helper.name} ({helper.path}), which opens connections as this user",)


def connect(
    found: Realm, networks: Iterable[Network], config: Config, request: LaunchOptions
) -> None:
    """Start the program that connects a user's realm with the host, if one of NETWORKS needs it."""
    if not any(network.traits.has_way_out for network in networks):
        return
    if linux.way_out.alive(realm.way_out_of(found.base)) is not None:
        return
    found.be_alone()
    if linux.way_out.alive(realm.way_out_of(found.base)) is not None:
        return  # another one has started it meanwhile
    if not lead_out(found, config.uplink_helper) and not request.quiet:
        tell(_NO_WAY_OUT)


def lead_out(found: Realm, wanted: str) -> bool:
    """Start the program WANTED (auto, pasta, slirp4netns) for a user's realm, locked alone.

    Returns whether there is one. Raises `HostError` if the one that is named is not installed.
    """
    helper = linux.way_out.start(realm.way_out_of(found.base), found.namespaces, wanted)
    dns = f"nameserver {linux.uplink_helpers.dns_address(helper)}\n" if helper is not None else ""
    files.write(realm.resolv_conf_of(found.base), dns, 0o644)
    return helper is not None
