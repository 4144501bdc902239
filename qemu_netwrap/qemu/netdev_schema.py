"""The keys of QEMU's netdev types, and the kinds of their values.

From qapi/net.json of QEMU 11; the keys of `-net nic`, and those of -nic besides its netdev's, are
from net/net.c. A key without a kind is a string.
"""

from __future__ import annotations

_SOCKET = "server:bool addr:dict reconnect:u32 reconnect-ms:i64"
_KEYS = {
    "user": "hostname restrict:bool ipv4:bool ipv6:bool ip net host tftp bootfile dhcpstart dns"
    " dnssearch:list domainname ipv6-net ipv6-prefix ipv6-prefixlen:i64 ipv6-host ipv6-dns smb"
    " smbserver hostfwd:list guestfwd:list tftp-server-name",
    "tap": "ifname fd fds script downscript br helper sndbuf:size vnet_hdr:bool vhost:bool vhostfd"
    " vhostfds vhostforce:bool queues:u32 poll-us:u32",
    "bridge": "br helper",
    "l2tpv3": "src dst srcport dstport ipv6:bool udp:bool cookie64:bool counter:bool"
    " pincounter:bool txcookie:u64 rxcookie:u64 txsession:u32 rxsession:u32 offset:u32",
    "socket": "fd listen connect mcast localaddr udp",
    "stream": _SOCKET,
    "dgram": "local:dict remote:dict",
    "vde": "sock port:u16 group mode:u16",
    "hubport": "hubid:i32 netdev",
    "netmap": "ifname devname",
    "af-xdp": "ifname mode force-copy:bool queues:i64 start-queue:i64 inhibit:bool sock-fds"
    " map-path map-start-index:i32",
    "vhost-user": "chardev vhostforce:bool queues:i64",
    "vhost-vdpa": "vhostdev vhostfd queues:i64 x-svq:bool",
    "passt": "path quiet:bool vhost-user:bool mtu:i64 address netmask mac gateway interface"
    " outbound outbound-if4 outbound-if6 dns search:list fqdn dhcp-dns:bool dhcp-search:bool"
    " map-host-loopback map-guest-addr dns-forward dns-host tcp:bool udp:bool icmp:bool dhcp:bool"
    " ndp:bool dhcpv6:bool ra:bool freebind:bool ipv4:bool ipv6:bool tcp-ports:list"
    " udp-ports:list param:list",
    "nic": "netdev macaddr model addr vectors:u32",
    "none": "",
}
# Mandatory keys.
REQUIRED = {
    "l2tpv3": ("src", "dst", "txsession"),
    "stream": ("addr",),
    "hubport": ("hubid",),
    "netmap": ("ifname",),
    "af-xdp": ("ifname",),
    "vhost-user": ("chardev",),
}
# Types that not every QEMU has; the QEMU in use lists its own in -help.
OPTIONAL = frozenset({"netmap", "af-xdp", "passt", "vhost-vdpa", "l2tpv3", "vde"})
TYPES = frozenset(_KEYS)
NIC_KEYS = {"mac": "str", "model": "str"}  # the keys of -nic besides its netdev's


def keys_of(type_: str) -> dict[str, str]:
    """Return the keys of a type with their kinds; empty for an unknown type."""
    pairs = (word.partition(":") for word in _KEYS.get(type_, "").split())
    return {key: kind or "str" for key, _, kind in pairs}
