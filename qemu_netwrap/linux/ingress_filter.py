"""What the host does not hear from its guests: the packet filter at the ingress of a bridge.

Router advertisements (RFC 4861) and redirects of both families would have the host send elsewhere.
It sees what comes up to the host, not what guests send each other. It is classic BPF, so that it
takes one request of netlink and no program, stands where a flush of nftables does not reach, and
goes with the bridge. A network with `ip_filter` has that in its place (linux.frame_filter).
"""

from __future__ import annotations

from qemu_netwrap.linux import bpf, frame_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.bpf import Line

_AFTER_IP6 = 54  # in an Ethernet frame
_VLAN_ID = 0xFFF  # of a tag's second half
_HOP_BY_HOP, _ROUTING, _DESTINATION = 0, 43, 60


def _is_bad(at: int) -> list[Line]:
    """Return the drop of ICMPv6's advertisements and redirects that begin AT an offset."""
    return [
        ("ldb", at, "", ""),
        ("jeq", frame_filter.ROUTER_ADVERTISEMENT, "drop", ""),
        ("jeq", frame_filter.REDIRECT, "drop", "next"),
    ]


def program() -> bytes:
    """Return the filter.

    Of IPv6, headers before ICMP's that nobody on a link needs are dropped whatever follows; a
    hop-by-hop header of eight bytes is what reports of multicast groups have. What comes in
    fragments the kernel does not take (RFC 6980), or puts together of a first one seen here. One
    VLAN tag is off by now; those behind it that name no VLAN the kernel takes off later.
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
    """Return the commands of tc(8) that have DEVICE filtered (tc-bpf(8))."""
    add = f"tc filter add dev {device} ingress bpf da bytecode '{bpf.text(program())}'"
    return f"tc qdisc add dev {device} clsact", f"{add}  # no advertisements, no redirects"
