"""QEMU's words with our taps in them: only the options concerned change."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_netwrap.core.jsonopts import JsonObject
    from qemu_netwrap.core.model import Grant
    from qemu_netwrap.core.netoption import NetOption
    from qemu_netwrap.core.optlist import OptList
    from qemu_netwrap.planning.plan import Plan

# What QEMU forbids beside fd= (net/tap.c, net_init_tap), and what said how to make the tap.
REPLACED_BY_FD = ("ifname", "script", "downscript", "vnet_hdr", "helper", "queues", "br", "network")


def words(plan: Plan, grants: Mapping[str, Grant]) -> tuple[str, ...]:
    """Return QEMU's words for PLAN; GRANTS says by tap name what each NIC got."""
    changed: dict[int, OptList | JsonObject] = {}
    for planned in plan.nics:
        grant = grants[planned.nic.tap]
        changed[planned.net.option.at] = _by_descriptor(planned.net, grant)
        for place, mac in zip(planned.places, grant.macs, strict=True):
            if not place.mac:
                opts = changed.get(place.option.at, place.opts)
                # An all-zero MAC asks for a default; ours takes its place.
                changed[place.option.at] = opts.without(place.key).with_added((place.key, mac))
    return plan.line.with_values({at: opts.render() for at, opts in changed.items()})


def _by_descriptor(net: NetOption, grant: Grant) -> OptList | JsonObject:
    """Return a netdev's options with its tap as descriptors."""
    many = len(grant.fds) > 1
    pairs = [("fds" if many else "fd", ":".join(grant.fds))]
    if grant.vhost_fds:
        pairs.append(("vhostfds" if many else "vhostfd", ":".join(grant.vhost_fds)))
    return net.opts.with_type("tap").without(*REPLACED_BY_FD).with_added(*pairs)
