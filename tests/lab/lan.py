"""A LAN to take part in: a switch with a router, another host and the machine on it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.netns import Host, link, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTER: Final = "192.0.2.1"
MACHINE: Final = "192.0.2.2"
OTHER: Final = "192.0.2.3"
ROUTER6: Final = "2001:db8:2::1"
MACHINE6: Final = "2001:db8:2::2"
OTHER6: Final = "2001:db8:2::3"
NET: Final = "192.0.2"
# What eth0 of the machine has: all that must go with it, and come back.
_RICH: Final = f"""
address add {MACHINE}/24 brd + dev eth0
address add {NET}.20/24 brd + dev eth0 label eth0:web
address add 198.51.100.5 peer 198.51.100.6 dev eth0
address add 203.0.113.9/28 dev eth0 noprefixroute
address add {NET}.30/24 dev eth0 valid_lft 4000 preferred_lft 0
address add 10.99.0.1/24 dev eth0 metric 777 scope link
address add {MACHINE6}/64 dev eth0
address add 2001:db8:2::20/64 dev eth0 valid_lft 5000 preferred_lft 3000
address add 2001:db8:77::1/64 dev eth0 nodad noprefixroute
address add 2001:db8:78::1/128 dev eth0 metric 300
route add default via {ROUTER} dev eth0 src {MACHINE} metric 100 mtu 1400 advmss 1300
route add 10.1.0.0/16 via {ROUTER} dev eth0 proto static
route add 10.2.0.0/16 dev eth0 scope link src {NET}.20 table 7
route add 10.3.0.0/16 via 172.31.0.1 dev eth0 onlink
route add 10.4.0.0/16 nexthop via {ROUTER} dev eth0 weight 2 nexthop via {OTHER} dev eth0
route add 10.5.0.0/16 nexthop via {ROUTER} dev eth0 nexthop via 172.16.9.1 dev eth9 onlink
route add 10.6.0.0/16 dev eth9 metric 5
route append 10.6.0.0/16 dev eth0 metric 5
route add 10.7.0.0/16 via inet6 {ROUTER6} dev eth0
route add unreachable 10.8.0.0/16
route add 192.0.2.128/25 dev eth0 tos 0x10
route add multicast 239.1.0.0/16 dev eth0
route add 10.11.0.0/16 encap ip id 42 dst {OTHER} dev eth0
nexthop add id 5 via {ROUTER} dev eth0
nexthop add id 6 via 172.16.9.1 dev eth9 onlink
nexthop add id 7 group 5/6
route add 10.9.0.0/16 nhid 5
route add 10.10.0.0/16 nhid 7
route add default via {ROUTER6} dev eth0 metric 100 pref high
route add default via {ROUTER6} dev eth0 table 7
route add 2001:db8:aa::/48 via {ROUTER6} dev eth0 mtu 1300
route add 2001:db8:ab::/48 via {ROUTER6} dev eth0 expires 6000
route add 2001:db8:ac::/48 nexthop via {ROUTER6} dev eth0 nexthop via {OTHER6} dev eth0
route add 2001:db8:ad::/48 dev eth0 proto ra
route add 2001:db8:ae::/48 via {ROUTER6} dev eth0 src {MACHINE6}
neighbour add {NET}.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
neighbour add 2001:db8:2::77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
neighbour add proxy {NET}.78 dev eth0
rule add iif eth0 lookup 7 priority 100
rule add from 10.50.0.0/16 oif eth0 lookup 7 priority 101
"""


@dataclass(frozen=True)
class Lan:
    """The machine, the others on its LAN, and the switch they are plugged into."""

    machine: Host
    router: Host
    other: Host
    switch: Host


@contextlib.contextmanager
def lan(*, configured: bool = True) -> Iterator[Lan]:
    """Yield a LAN; the machine's eth0 has its addresses and default routes if CONFIGURED.

    Its eth9, which leads nowhere, has 172.16.9.2/24.
    """
    with contextlib.ExitStack() as stack:
        names = ("machine", "router", "other", "switch")
        machine, router, other, switch = (stack.enter_context(Host(name)) for name in names)
        batch(switch, "link add sw0 type bridge forward_delay 0", "link set sw0 up")
        for number, host in enumerate((machine, router, other)):
            link(host, "eth0", switch, f"port{number}")
            batch(switch, f"link set port{number} master sw0")
        for host, four, six in ((router, ROUTER, ROUTER6), (other, OTHER, OTHER6)):
            batch(host, f"address add {four}/24 dev eth0", f"address add {six}/64 dev eth0")
        link(machine, "eth9", switch, "port9")
        batch(machine, "address add 172.16.9.2/24 dev eth9")
        if configured:
            configure(machine)
        yield Lan(machine, router, other, switch)


def configure(machine: Host) -> None:
    """Give the machine's eth0 an address and a default route of each family."""
    batch(
        machine,
        f"address add {MACHINE}/24 brd + dev eth0",
        f"address add {MACHINE6}/64 dev eth0",
        f"route add default via {ROUTER} dev eth0",
        f"route add default via {ROUTER6} dev eth0",
    )


def enrich(machine: Host) -> None:
    """Give the machine's eth0, which has nothing, something of everything there is."""
    lines = list(filter(None, _RICH.splitlines()))
    # A source address must be settled before a route names it.
    batch(machine, *(line for line in lines if line.startswith("address")))
    batch(machine, *(line for line in lines if not line.startswith("address")))
    machine.run(*"ip -6 rule add iif eth0 lookup 7 priority 100".split())


def batch(host: Host, *commands: str) -> None:
    """Run `ip` commands, written without the leading `ip`."""
    text = "".join(f"{command}\n" for command in commands)
    host.run("ip", "-batch", "-", input=text)
    settled(host)


def settled(host: Host) -> None:
    """Wait for the kernel to finish with IPv6 addresses: their routes come a moment later."""
    wait_for(lambda: not _tentative(host), f"the addresses of {host.name}")


def _tentative(host: Host) -> bool:
    """Whether the kernel has not finished with an IPv6 address (IFA_F_TENTATIVE)."""
    rows = (line.split() for line in host.proc_net("if_inet6").splitlines())
    return any(int(row[4], 16) & 0x40 for row in rows)
