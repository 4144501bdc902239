"""Targeted questions to the host: nothing here grows with the number of its interfaces.

The one dump, of IPv4 routes, is made only when a NAT or host-only network is made.
"""

from __future__ import annotations

import _socket
import os

from qemu_netwrap import linux, model, qemu
from qemu_netwrap.linux import files, sysctl
from qemu_netwrap.linux.netlink.links import Link, Rtnl
from qemu_netwrap.model.host import Surroundings
from qemu_netwrap.model.names import ifname_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.users import User
    from qemu_netwrap.model.ipv4 import Subnet

# What taps can be plugged into by IFLA_MASTER; Open vSwitch takes its ports by other ways.
BRIDGE_KINDS = ("bridge",)
LEFT = "left by qemu-netwrap to its other ports"  # a bridge's alias
SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14
# Where a host's DNS servers are when resolv.conf names a local stub that cannot be asked.
_DNS_PORT = 53
RESOLVERS = (
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
)


def namespace() -> str:
    """Return a name for this network namespace that no other has, until the next boot and after.

    The kernel numbers namespaces and never uses a number twice (`SO_NETNS_COOKIE`); kernels
    before 5.14 have the inode only.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read(8)
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        raw = probe.getsockopt(_socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        number = f"{int.from_bytes(raw, 'little')}"
    except OSError:
        number = f"i{os.stat('/proc/self/ns/net').st_ino}"
    finally:
        probe.close()
    return f"{boot}-{number}"


def machine() -> str:
    """Return what tells this host from others: machine-id(5), else its host name."""
    return files.read("/etc/machine-id").strip() or os.uname().nodename


def folder() -> str:
    """Return the current folder, empty when it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def existing(ifnames: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of IFNAMES that are interfaces here."""
    if not ifnames:
        return ()
    rtnl = Rtnl()
    try:
        return tuple(name for name in ifnames if not ifname_fault(name) and rtnl.link(name))
    finally:
        rtnl.close()


def link(name: str) -> Link | None:
    """Return an interface; None when there is none of that name."""
    rtnl = Rtnl()
    try:
        return None if ifname_fault(name) else rtnl.link(name)
    finally:
        rtnl.close()


def has_tap(index: int, *, held: bool) -> bool:
    """Whether interface number INDEX is a tap, with HELD one that somebody has open.

    A tap has a carrier from the first that opens it to the last that closes it, by whatever death
    (drivers/net/tun.c, `tun_attach` and `__tun_detach`).
    """
    rtnl = Rtnl()
    try:
        found = rtnl.link_at(index)
        return found is not None and found.kind == "tun" and (found.carrier or not held)
    finally:
        rtnl.close()


def host_bridge() -> str:
    """Return the bridge that carries the host's IPv4 default route, empty if none does."""
    rtnl = Rtnl()
    try:
        device = rtnl.default_device()
        found = rtnl.link(device) if device else None
        return device if found is not None and found.kind in BRIDGE_KINDS else ""
    finally:
        rtnl.close()


def is_ours(link: Link) -> bool:
    """Whether a bridge is of our making, told without state: by its MAC (see `own_bridge`).

    Only root gives a bridge a MAC. One that was left to somebody else's ports says so.
    """
    own = model.mac.derive(machine(), "bridge", link.name)
    return link.kind == "bridge" and model.mac.unpack(link.mac) == own and link.alias != LEFT


def surroundings(
    bridge: str, *, places: tuple[Subnet, ...], forwarding: frozenset[str], inner: tuple[str, ...]
) -> Surroundings:
    """Look at what matters for making a network on BRIDGE.

    PLACES are where its subnet may be, none for a plain bridge. FORWARDING are devices that forward
    by our doing, INNER the bridges of our networks.
    """
    rtnl = Rtnl()
    try:
        there = rtnl.link(bridge)
        routes = tuple(rtnl.routes(places)) if places else ()
    finally:
        rtnl.close()
    devices = dict.fromkeys(route.device for route in routes)
    routers = tuple(
        d for d in devices if d not in forwarding and sysctl.read("ipv4", d, "forwarding") == "1"
    )
    is_bridge = there is None or there.kind in BRIDGE_KINDS
    path, in_order = resolver() if places else ("", True)
    return Surroundings(
        there is not None,
        is_bridge,
        routes,
        routers,
        ("lo", *inner),
        path,
        machine(),
        neighbours=linux.coexistence.look(bridge, routed=bool(places)),
        in_order=in_order,
        is_left=there is not None and is_ours(there),
    )


def resolver() -> tuple[str, bool]:
    """Return the file with the host's DNS servers, and whether they are to be asked in their order.

    They are if there are several and the first can be asked. Of a single one dnsmasq would in that
    way make a timeout out of a refusal (REFUSED).

    A stub on the host itself, which may know more than the servers behind it, is one of them if
    somebody is there: it may be out of reach, in another network namespace. dnsmasq would not start
    on a link into a folder that is not there: nothing then.
    """
    for path in RESOLVERS:
        asked = [not _is_local(server) or _is_there(server) for server in _nameservers(path)]
        if any(asked):
            return path, asked[0] and len(asked) > 1
    folder = os.path.dirname(os.path.realpath(RESOLVERS[0]))
    return (RESOLVERS[0] if os.path.isdir(folder) else os.devnull), False


def _is_local(server: str) -> bool:
    """Whether a DNS server is on the loopback interface."""
    return server.startswith("127.") or server == "::1"


def _is_there(server: str) -> bool:
    """Whether somebody answers on a loopback address; yes where that may not be asked."""
    return linux.ports.is_held(server, _DNS_PORT)


def _nameservers(path: str) -> list[str]:
    """Return the servers a resolv.conf(5) names."""
    lines = (line.split() for line in files.read(path).splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def qemu_options(program: str, user: User | None) -> tuple[frozenset[str], frozenset[str]]:
    """Ask a QEMU, as USER, which options it has: with an argument, and without."""
    return qemu.known_options.parse_help(_help(program, user))


def qemu_knows(program: str, words: frozenset[str], user: User | None) -> frozenset[str]:
    """Ask a QEMU, as USER, which of WORDS it has as kinds of netdev, or as keys of one."""
    return words & qemu.known_options.netdev_words(_help(program, user))


def _help(program: str, user: User | None) -> str:
    """Return what QEMU says to -help; nothing if it does not."""
    return linux.program_query.ask((os.path.abspath(program), "-help"), user)
