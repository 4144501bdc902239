"""The meaning of each key of the configuration: texts for its man page.

`tools/generate.py` writes them into docs/man/qemu-netwrap.toml.5, with the modes that a key is for
from `config.parse`. Backticks enclose literal text. No launch loads this.
"""

from __future__ import annotations

from qemu_netwrap.model import host_services

TOP = {
    "default": "The network of taps that name none."
    " Without it: the bridge that carries the host's default route, else `nat`.",
    "bind_group": "`true` stands for `--bind-group`: devices that share an IOMMU group with one"
    " that is passed through go to `vfio-pci` with it. By default `false`.",
    "uplink_helper": "The program that connects an ordinary user's networks with the host's:"
    ' `"pasta"`, `"slirp4netns"`, or `"auto"`, the better one that is installed; by default'
    ' `"auto"`. Networks of root need none.',
    "run_as": '`"invoker"`: under sudo QEMU runs as the user who called it, as if by `--run-as`,'
    " which wins. It has no effect without sudo. By default QEMU runs as the user who starts it.",
    "networks": "Tables, one for each network.",
}

# The man page puts "For nat and host-only:" or the like before a key that is not for all modes.
KEYS = {
    "mode": '`"bridge"`, `"nat"` or `"host-only"`. It must be given.',
    "bridge": "The name of the bridge, by default `qn-` and the network's name, shortened to 15"
    " bytes if need be. For `nat` and `host-only` it must not be there before.",
    "stp": "Whether the bridge speaks the spanning tree protocol; by default `false`.",
    "forward_delay": "Seconds, 0 to 30; by default 0, with STP the kernel's 15."
    " With STP at least 2.",
    "hello_time": "Seconds, 1 to 10; by default the kernel's 2.",
    "isolated": "`true`: guests of the network reach the host and what it leads to, but not each"
    " other; by default `false`.",
    "mac_filter": "Guests send with the MACs of their NICs alone; by default `true`, for mode"
    " bridge `false`. With it DHCP serves these MACs alone, and the names in DNS are those of"
    " `-name`. A guest that has guests of its own on a bridge needs `false`. Linux 5.16 or later.",
    "ip_filter": "Guests are no DHCP servers and no routers: they ask for addresses under their own"
    " MACs alone, send no router advertisements and redirects, and claim by ARP and neighbor"
    " discovery neither the gateway's address nor one that is reserved for another guest."
    " By default as `mac_filter`. A guest that serves or routes for others needs `false`.",
    "uplink": "a NIC of the host that the bridge takes in when it is created, with its addresses"
    " and routes; by default none. The bridge must not be there before.",
    "subnet": 'the network, as `"192.168.0.0/24"`. By default a /24 that no route of the host'
    " overlaps, the same each time if it is free."
    " The gateway is its first address; the others are leased.",
    "ipv6": "whether the network has IPv6 where the host has it; by default `true`.",
    "subnet6": 'its IPv6 network, a /64 as `"fd12:3456:789a:1::/64"`. By default one of the'
    " host's own unique local ones (RFC 4193), the same each time if it is free."
    " The gateway is its address 1; guests take theirs by router advertisement or DHCPv6.",
    "dns": "a list of name servers, by default the host's own.",
    "hosts": "names that the network's DNS knows beside its guests', with their addresses, as"
    ' `{ files = "192.0.2.9" }`.',
    "addresses": "addresses that are one guest's alone, by its name (`-name`) or a NIC's MAC, as"
    ' `{ web = "192.168.0.9", "52:54:00:00:00:0a" = "192.168.0.10" }`.'
    " A `subnet` must be set beside it."
    " The second NIC of guest web on a network is called web-1.",
    "host_services": "the services of the host that guests may use beside DHCP, DNS and ICMP, as"
    ' `["ssh", "tcp/8080", "udp/5000-5010"]`; no others then.'
    ' `["all"]` opens all of them, `[]` none.'
    " By default all are open on a host without a firewall, and none where a firewall of the host"
    " closes what comes in. Names are "
    + ", ".join(f"`{name}`" for name in [*host_services.NAMES][:-1])
    + f" and `{[*host_services.NAMES][-1]}`.",
    "tftp": "the folder whose files guests get by TFTP, as far as the user that dnsmasq runs as may"
    ' read them, such as `"/srv/tftp"`.',
    "bootfile": 'what DHCP tells guests to boot: a file below `tftp`, such as `"pxelinux.0"`, or a'
    " URL.",
}
