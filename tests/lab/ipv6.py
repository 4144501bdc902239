"""IPv6 in the lab: guests' addresses, routers that advertise, kernels of before."""

from __future__ import annotations

import ipaddress
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guest.shell import Shell
    from lab.netns import Host, Uplinked

_GLOBAL: Final = r"""
addresses() { ip -6 address show dev eth0 | grep -v tentative; }
look() { addresses | grep -o 'inet6 [0-9a-f:]*/64 scope global'; }
try 100 look
"""


def wait_global(guest: Shell) -> ipaddress.IPv6Address:
    """Return the address of `guest` that is not its link's alone, when it may use it."""
    told = guest.ask(_GLOBAL.strip().replace("\n", "; ")).split()
    return ipaddress.IPv6Address(told[1].partition("/")[0])


def before_6_17(host: Host) -> None:
    """Have a machine look like one whose kernel has no forwarding device by device.

    A folder of the few settings that are looked at covers the one in which that is told; these, and
    the global switch, which is then used, are the kernel's own.
    """
    script = """
        there=/proc/sys/net/ipv6/conf/default
        mkdir /run/default
        mount --bind $there /run/default
        mount -t tmpfs -o mode=755 lab $there
        for each in disable_ipv6 forwarding; do
            touch $there/$each
            mount --bind /run/default/$each $there/$each
        done
        umount /run/default
        rmdir /run/default
    """
    host.run("sh", "-euc", script)


def advertise(both: Uplinked) -> None:
    """Have the internet advertise itself to the machine as a router, and go on doing so."""
    both.net.popen(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
        *("--port=0", "--bind-interfaces", "--interface=peer0", "--enable-ra", "--leasefile-ro"),
        *("--dhcp-range=2001:db8:113::,ra-only", "--ra-param=peer0,60,1800"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
