"""A filter of what the host receives from its guests, at the ingress of a bridge.

Router advertisements (RFC 4861) and redirects, of either family, would change the host's routes.
The filter sees what goes up to the host, not what guests send to each other. It is classic BPF, so
that it takes one netlink request and no program, survives a flush of nftables, and is removed with
the bridge. A network with `ip_filter` has `frame_filter` instead.
"""

from __future__ import annotations

from qemu_netwrap.linux import bpf, frame_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.bpf import Line

_AFTER_IP6 = 54  # in an Ethernet frame
_VLAN_ID = 0xFFF  # in the second half of a tag
_HOP_BY_HOP, _ROUTING, _DESTINATION = 0, 43, 60


def _is_bad(at: int) -> list[Line]:
    """Return lines that drop router advertisements and redirects (ICMPv6) AT an offset."""
    return [
        ("ldb", at, "", ""),
        ("jeq", frame_filter.ROUTER_ADVERTISEMENT, "drop", ""),
        ("jeq", frame_filter.REDIRECT, "drop", "next"),
    ]


def program() -> bytes:
    """Return the filter.

    IPv6 packets with extension headers that are not needed on a link are dropped; a hop-by-hop
    header of eight bytes is needed by multicast reports. Fragmented neighbor discovery is ignored
    by the kernel (RFC 6980), and the first fragment of other packets is seen here. One VLAN tag has
    been removed by now; further tags without a VLAN id are removed by the kernel later.
    """
    return bpf.assemble(
        [
            ("ldh", 12, "", ""),
            ("jeq", frame_filter.IPV6, "ip6", ""),
            ("jeq", frame_filter.IPV4, "ip4", ""),
            ("jeq", frame_filter.VLAN, "tag", ""),
            ("jeq", frame_filter.QINQ, "", "next"),
            "tag",
            ("ldh", 14, "", ""),
            ("jset", _VLAN_ID, "next", "drop"),
            "ip4",
            ("ldb", 23, "", ""),
            ("jeq", frame_filter.ICMP, "icmp4", "next"),
            *frame_filter.icmp4("next"),
            "ip6",
            ("ldb", 20, "", ""),
            ("jeq", _ROUTING, "drop", ""),
            ("jeq", _DESTINATION, "drop", ""),
            ("jeq", _HOP_BY_HOP, "", "icmp6"),
            ("ldb", _AFTER_IP6 + 1, "", ""),
            ("jeq", 0, "", "drop"),
            ("ldb", _AFTER_IP6, "", ""),
            ("jeq", frame_filter.ICMPV6, "", "drop"),
            *_is_bad(_AFTER_IP6 + 8),
            "icmp6",
            ("jeq", frame_filter.ICMPV6, "", "next"),
            *_is_bad(_AFTER_IP6),
            *("drop", ("ret", frame_filter.DROP, "", "")),
            *("next", ("ret", frame_filter.NEXT, "", "")),
        ]
    )


def commands(device: str) -> tuple[str, ...]:
    """Return the equivalent commands of tc(8) for DEVICE (tc-bpf(8))."""
    add = f"tc filter add dev {device} ingress bpf da bytecode '{bpf.text(program())}'"
    return f"tc qdisc add dev {device} clsact", f"{add}  # no advertisements, no redirects"
