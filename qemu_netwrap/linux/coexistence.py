"""Software on the host that affects guests: firewalls, network managers, DNS and DHCP servers.

Cheap signs come first: a few files, two requests to nf_tables, and sockets that are bound and
closed again. If there is no sign, nothing more is loaded or asked.
"""

from __future__ import annotations

import os

from qemu_netwrap import linux, model
from qemu_netwrap.linux import files, nft

TYPE_CHECKING = False

# Those after the first are not assigned (IANA); bindresvport(3) gives out ports from 600 on only.
DNS_PORTS = (53, *range(288, 308), 28, 30, 32, 34, 36)
DHCP_PORT, DHCP6_PORT = 67, 547
# What a network manager (model.network_managers) creates when it starts.
_MANAGERS = {
    "NetworkManager": "/run/NetworkManager",
    "systemd-networkd": "/run/systemd/netif/state",
}
# By the families of model.coexistence: whether br_netfilter shows bridged frames to firewalls.
_BRIDGED = {"ip": "bridge-nf-call-iptables", "ip6": "bridge-nf-call-ip6tables"}


def look(
    bridge: str, *, routed: bool, managed: bool = True
) -> model.coexistence.CoexistenceFacts | None:
    """Return what affects a network on BRIDGE; None if nothing does.

    ROUTED says that the network gets a subnet, MANAGED that the host's network managers see its
    devices. What this process lacks the privilege to ask counts as not there.
    """
    signs = _MANAGERS.items() if managed else ()
    managers = tuple(name for name, sign in signs if os.path.exists(sign))
    bridged = tuple(f for f, key in _BRIDGED.items() if _is_on(f"/proc/sys/net/bridge/{key}"))
    tables = nft.foreign_tables()
    if not (routed or bridged):
        # Without br_netfilter only firewalls for bridges see the frames of a plain bridge.
        tables = tuple(table for table in tables if table[0] == "bridge")
    legacy = tuple(f for f in _BRIDGED if (routed or bridged) and nft.legacy_tables(f))
    open_from = linux.sysctl.open_from()
    dns_port, taken = _ports(open_from) if routed else (DNS_PORTS[0], ())
    is_moved = dns_port != DNS_PORTS[0]
    is_open = routed and open_from <= DHCP6_PORT
    if not (managers or tables or legacy or taken or is_moved or is_open):
        return None

    asked = linux.firewalls.Wanted(bridge, (*DNS_PORTS[:1], dns_port, DHCP_PORT, DHCP6_PORT))
    filters, chains = linux.firewalls.that_drop(tables, legacy, asked)
    return model.coexistence.CoexistenceFacts(
        filters,
        chains,
        linux.firewalls.FIREWALLD_TABLE in tables,
        linux.network_managers.running(managers),
        dns_port,
        taken,
        open_from,
        bridged,
    )


def _ports(open_from: int) -> tuple[int, tuple[int, ...]]:
    """Return a free port for DNS, and the DHCP ports that another server has on every address.

    dnsmasq shares its UDP ports (SO_REUSEADDR), and another process that binds one gets its
    packets. So DNS is on a port below OPEN_FROM, which takes a privilege; on 53 if none is free.
    """
    dhcp = ((linux.ports.IPV4, DHCP_PORT), (linux.ports.IPV6, DHCP6_PORT))
    taken = tuple(
        port for family, port in dhcp if linux.ports.is_taken(family, linux.ports.UDP, port)
    )
    closed = tuple(port for port in DNS_PORTS if port < open_from)
    return linux.ports.first_free(closed or DNS_PORTS[:1]), taken


def _is_on(path: str) -> bool:
    """Whether a sysctl is 1; not if it does not exist."""
    return files.read(path).strip() == "1"
