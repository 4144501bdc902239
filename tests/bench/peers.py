"""Who is compared: each starts the same QEMU with a tap on the same bridge, in its own way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.clock import BARE, Vm
from fidelity.running import open_tap

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.netns import Host

    Start = Callable[[Host], Vm]

# The wheel in a virtual environment of its own, made by the distribution's interpreter.
CLEAN: Final = Path(__file__).parents[2] / "build/clean/bin"
US: Final = (str(CLEAN / "qemu-netwrap"), "--")
BRIDGE: Final = "br0"
HELPER: Final = "/usr/lib/qemu/qemu-bridge-helper"
IFUP: Final = "/run/qemu-ifup"
IFUP_SLEEPS: Final = "/run/qemu-ifup-sleeps"
IFDOWN: Final = "/run/qemu-ifdown"

# What a launcher of these libraries would pay before it does anything.
_EVERYTHING: Final = (
    "import psutil, pyroute2, sh, typer; from qemu_netwrap.__main__ import main; main()"
)
_TUNCTL: Final = (
    "tunctl -b -t old0 >/dev/null; brctl addif br0 old0; ifconfig old0 0.0.0.0 up\n"
    '"$@" -netdev tap,id=n0,ifname=old0,script=no,downscript=no\n'
    "ifconfig old0 down; tunctl -d old0 >/dev/null\n"
)
_IP: Final = (
    "ip tuntap add dev new0 mode tap vnet_hdr; ip link set dev new0 master br0 up\n"
    '"$@" -netdev tap,id=n0,ifname=new0,script=no,downscript=no\n'
    "ip tuntap del dev new0 mode tap\n"
)
# NAT as one writes it: what we make, less the journal and the guards.
_NAT: Final = """
ip link add shell0 type bridge
ip address add 10.99.0.1/24 dev shell0
ip link set shell0 up
sysctl -qw net.ipv4.conf.shell0.forwarding=1 net.ipv4.conf.eth0.forwarding=1
nft -f - <<'EOF'
table inet shell {
    chain forward {
        type filter hook forward priority filter;
        ct state established,related accept
        oifname "shell0" drop
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.99.0.0/24 oifname != "shell0" masquerade
    }
}
EOF
dnsmasq --conf-file=/dev/null --interface=shell0 --except-interface=lo --bind-dynamic \
    --pid-file=/run/shell.pid --dhcp-range=10.99.0.2,10.99.0.254,1h --no-ping \
    --dhcp-leasefile=/run/shell.leases
ip tuntap add dev new0 mode tap vnet_hdr
ip link set dev new0 master shell0 up
"$@" -netdev tap,id=n0,ifname=new0,script=no,downscript=no
kill "$(cat /run/shell.pid)"
nft delete table inet shell
ip tuntap del dev new0 mode tap
ip link del shell0
sysctl -qw net.ipv4.conf.eth0.forwarding=0
"""


def prepare(host: Host) -> None:
    """Put on HOST what the peers need."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    host.run("ip", "address", "add", "10.9.0.1/24", "dev", BRIDGE)
    host.run("ip", "link", "set", BRIDGE, "up")
    host.write("/etc/qemu/bridge.conf", f"allow {BRIDGE}\n")
    for path, pause in ((IFUP, ""), (IFUP_SLEEPS, "sleep 0.5\n")):
        script = f'#!/bin/sh\nifconfig "$1" 0.0.0.0 promisc up\n{pause}brctl addif br0 "$1"\n'
        host.write(path, script, mode=0o755)
    host.write(IFDOWN, '#!/bin/sh\nifconfig "$1" down\nbrctl delif br0 "$1"\n', mode=0o755)


def by_hand(host: Host, name: str = "hand0") -> Vm:
    """Bare QEMU with a tap that was made, plugged and brought up before the watch starts."""
    fd = open_tap(host, name)
    host.run("ip", "link", "set", name, "master", BRIDGE, "up")
    vm = Vm(host, [*BARE, "-netdev", f"tap,id=n0,fd={fd}"], fds=[fd])
    os.close(fd)
    return vm


def bare(*net: str) -> Start:
    """QEMU with these words."""
    return lambda host: Vm(host, [*BARE, *net])


def ours(*net: str) -> Start:
    """qemu-netwrap with these words."""
    return lambda host: Vm(host, [*US, *BARE, *net])


def everything(host: Host) -> Vm:
    """qemu-netwrap, with the libraries loaded that it does without."""
    python = (str(CLEAN / "python"), "-c", _EVERYTHING, "--")
    return Vm(host, [*python, *BARE, "-netdev", "bridge,id=n0,br=br0"])


def shell(script: str) -> Start:
    """A shell script around QEMU."""
    return lambda host: Vm(host, ["sh", "-c", script, "sh", *BARE])


def _script(path: str) -> str:
    """Return the netdev with which QEMU runs scripts itself."""
    return f"tap,id=n0,script={path},downscript={IFDOWN}"


NOTHING: Final[dict[str, Start]] = {
    "bare QEMU": bare(),
    "qemu-netwrap": ours(),
    "qemu-netwrap, `-netdev user`": ours("-netdev", "user,id=n0"),
}
ON_A_BRIDGE: Final[dict[str, Start]] = {
    "bare QEMU, tap made by hand": by_hand,
    "qemu-netwrap, bridge": ours("-netdev", "bridge,id=n0,br=br0"),
    "qemu-netwrap, nat that is up": ours("-netdev", "nat,id=n0"),
    "tunctl, brctl, ifconfig in a shell": shell(_TUNCTL),
    "ip in a shell": shell(_IP),
    "qemu-bridge-helper": bare("-netdev", f"bridge,id=n0,br=br0,helper={HELPER}"),
    "qemu-ifup (ifconfig, brctl)": bare("-netdev", _script(IFUP)),
    "qemu-ifup with its `sleep 0.5`": bare("-netdev", _script(IFUP_SLEEPS)),
    "qemu-netwrap, all its libraries loaded": everything,
}
NAT: Final[dict[str, Start]] = {
    "bare QEMU, tap made by hand": by_hand,
    "qemu-netwrap, nat": ours("-netdev", "nat,id=n0"),
    "ip, nft, dnsmasq in a shell": shell(_NAT),
}
