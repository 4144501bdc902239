"""Facts about the host, by targeted queries: none grows with the number of its interfaces.

The only dump, of the IPv4 routes, is made when a NAT or host-only network is created.
"""

from __future__ import annotations

import _socket
import os

from qemu_netwrap import linux, model, qemu
from qemu_netwrap.linux import files, sysctl
from qemu_netwrap.linux.netlink.links import Link, Rtnl
from qemu_netwrap.model.host import NetworkFacts
from qemu_netwrap.model.names import ifname_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.users import User
    from qemu_netwrap.model.ipv4 import Subnet

# The kinds of link that take ports by IFLA_MASTER; Open vSwitch takes them differently.
BRIDGE_KINDS = ("bridge",)
LEFT = "left by qemu-netwrap to its other ports"  # a bridge's alias
SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14
# Where the DNS servers are listed if resolv.conf names a local stub that cannot be reached.
_DNS_PORT = 53
RESOLVERS = (
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
)


def namespace() -> str:
    """Return a name for this network namespace that is unique, also across boots.

    The kernel numbers namespaces and never reuses a number (`SO_NETNS_COOKIE`); before Linux 5.14
    there is only the inode.
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
    """Return what identifies this host: its machine-id(5), else its host name."""
    return files.read("/etc/machine-id").strip() or os.uname().nodename


def folder() -> str:
    """Return the current folder, empty if it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def existing(ifnames: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of IFNAMES that exist."""
    if not ifnames:
        return ()
    rtnl = Rtnl()
    try:
        return tuple(name for name in ifnames if not ifname_fault(name) and rtnl.link(name))
    finally:
        rtnl.close()


def link(name: str) -> Link | None:
    """Return an interface; None if there is none with that name."""
    rtnl = Rtnl()
    try:
        return None if ifname_fault(name) else rtnl.link(name)
    finally:
        rtnl.close()


def has_tap(index: int, *, held: bool) -> bool:
    """Whether the interface with that index is a tap, with HELD one that a process has open.

    A tap has a carrier while any process has it open (drivers/net/tun.c, `tun_attach` and
    `__tun_detach`).
    """
    rtnl = Rtnl()
    try:
        found = rtnl.link_at(index)
        return found is not None and found.kind == "tun" and (found.carrier or not held)
    finally:
        rtnl.close()


def host_bridge() -> str:
    """Return the bridge that the host's IPv4 default route leaves by, empty if none."""
    rtnl = Rtnl()
    try:
        device = rtnl.default_device()
        found = rtnl.link(device) if device else None
        return device if found is not None and found.kind in BRIDGE_KINDS else ""
    finally:
        rtnl.close()


def is_ours(link: Link) -> bool:
    """Whether qemu-netwrap created a bridge, by its MAC (see `own_bridge`): no state is needed.

    Only root can give a bridge that MAC. A bridge that was left to others' ports has an alias.
    """
    own = model.mac.derive(machine(), "bridge", link.name)
    return link.kind == "bridge" and model.mac.unpack(link.mac) == own and link.alias != LEFT


def surroundings(
    bridge: str,
    *,
    places: tuple[Subnet, ...],
    forwarding: frozenset[str],
    inner: tuple[str, ...],
    resolv_conf: str = "",
) -> NetworkFacts:
    """Return the facts that matter for creating a network on BRIDGE.

    PLACES are where its subnet may be, none for a plain bridge. FORWARDING are the devices on which
    qemu-netwrap has switched forwarding on, INNER the bridges of its networks. RESOLV_CONF has the
    name servers that are reached from a user's realm, where the host's may not be; no network
    manager of the host sees that realm.
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
    path, in_order = (resolv_conf, False) if resolv_conf or not places else resolver()
    return NetworkFacts(
        there is not None,
        is_bridge,
        routes,
        routers,
        ("lo", *inner),
        path,
        machine(),
        others=linux.coexistence.look(bridge, routed=bool(places), managed=not resolv_conf),
        in_order=in_order,
        is_left=there is not None and is_ours(there),
    )


def resolver() -> tuple[str, bool]:
    """Return the file with the host's DNS servers, and whether they are to be asked in order.

    They are if there are several and the first can be reached. With a single one, dnsmasq's
    strict-order would turn a refusal (REFUSED) into a time-out.

    A local stub, which may know more than the servers behind it, is used if it answers: it may be
    in another network namespace. The path is empty for a link into a folder that does not exist,
    with which dnsmasq would not start.
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
    """Whether a process has the DNS port of SERVER's address; yes without privilege to ask."""
    return linux.ports.is_held(server, _DNS_PORT)


def _nameservers(path: str) -> list[str]:
    """Return the servers that a resolv.conf(5) names."""
    lines = (line.split() for line in files.read(path).splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def qemu_options(program: str, user: User | None) -> tuple[frozenset[str], frozenset[str]]:
    """Return the options that a QEMU, run as USER, has: with an argument, and without."""
    return qemu.known_options.parse_help(_help(program, user))


def qemu_knows(program: str, words: frozenset[str], user: User | None) -> frozenset[str]:
    """Return those of WORDS that a QEMU, run as USER, has as netdev types, or as their keys."""
    return words & qemu.known_options.netdev_words(_help(program, user))


def _help(program: str, user: User | None) -> str:
    """Return what QEMU prints for -help; empty if that fails."""
    return linux.program_query.ask((os.path.abspath(program), "-help"), user)
