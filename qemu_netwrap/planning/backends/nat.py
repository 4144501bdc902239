"""nat: guests reach what the host reaches, under the host's addresses; nothing new comes in."""

from __future__ import annotations

from qemu_netwrap.core import names
from qemu_netwrap.core.resources import DeviceSetting, Forwarding, Rules
from qemu_netwrap.planning.backends.segment import chain, dnsmasq, segment, subnet_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.ipv4 import Subnet
    from qemu_netwrap.core.model import Network, Surroundings
    from qemu_netwrap.core.resources import Resource


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return a bridge with a gateway address, forwarding, the rules and dnsmasq.

    IPv4 forwarding is decided by the device a packet comes in by (Documentation/networking/
    ip-sysctl.rst, conf/DEVICE/forwarding): the bridge for what guests send, and each device that
    routes leave through for the answers. The global switch stays as it is.
    """
    subnet = subnet_of(network, around)
    uplinks = dict.fromkeys(r.device for r in around.routes if r.device != "lo")
    return (
        *segment(network, subnet, around),
        DeviceSetting(network.bridge, "ipv4", "forwarding", "1"),
        # Rules before forwarding: no packet is forwarded that they have not seen.
        Rules(network.bridge, rules(network, subnet, uplinks, around)),
        *(Forwarding(device, network.bridge) for device in uplinks),
        dnsmasq(network, subnet, around),
    )


def rules(network: Network, subnet: Subnet, uplinks: dict[str, None], around: Surroundings) -> str:
    """Return the network's chains.

    A host that was no router does not become one for its neighbours: what comes in by an uplink
    whose forwarding only we switched on goes to our guests or nowhere.
    """
    dev = f'"{network.bridge}"'
    guarded = [u for u in uplinks if u not in around.routers and names.plain_ifname(u)]
    forward = chain(
        network,
        "forward",
        "type filter hook forward priority filter; policy accept;",
        f"iifname {dev} oifname {dev} accept",
        f"iifname {dev} ip saddr != {subnet} drop",
        f"iifname {dev} meta nfproto != ipv4 drop",
        "ct state established,related accept",
        "ct status dnat accept",
        f"oifname {dev} drop",
        *(f'iifname "{u}" oifname != {dev} drop' for u in guarded),
    )
    postrouting = chain(
        network,
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        # Not between guests: with br_netfilter their frames pass here too.
        f"ip saddr {subnet} oifname != {dev} masquerade",
    )
    return forward + postrouting
