"""QEMU's network options: the meaning of one -netdev, -nic or -net, and whether QEMU accepts it.

Keys and their kinds are in `qemu.netdev_schema`. Which keys of a tap exclude each other is from
net/tap.c, `net_init_tap`; the rest from net/net.c, `net_client_init1` and `net_param_nic`.
"""

from __future__ import annotations

from qemu_netwrap import qemu
from qemu_netwrap.model import names, numbers
from qemu_netwrap.model.network import types
from qemu_netwrap.qemu import netdev_schema
from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.qemu.option_groups import MODERN, Entry, read_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.model.run import PortForward
    from qemu_netwrap.qemu.command_line import Option

OUR_TYPES = frozenset(types())
SRIOV = "sriov"  # an extension too, but no network: it stands for a VF, not a tap
OUR_KEYS = frozenset({"network", "uplink"})
# Descriptions of the values of extension keys, none of which may be empty.
_OUR_KINDS = {"network": "a network's name", "uplink": "an interface's name"}
# Keys of a tap that are invalid with an extension type: QEMU gets its tap by descriptor.
_NOT_OURS = frozenset("fd fds script downscript br helper vhostfd vhostfds".split())
TAP_KEYS = frozenset({"id", "type", *netdev_schema.keys_of("tap")})
OUR_TAP_KEYS = TAP_KEYS - _NOT_OURS
NIC_KEYS = frozenset(netdev_schema.NIC_KEYS)
MAX_QUEUES = 256  # MAX_TAP_QUEUES, drivers/net/tun.c
# The keys of a tap that QEMU rejects beside each of these.
_EXCLUDED_BY = {
    "fd": "ifname script downscript vnet_hdr helper queues fds vhostfds".split(),
    "fds": "ifname script downscript vnet_hdr helper queues vhostfd".split(),
    "helper": "ifname script downscript vnet_hdr queues vhostfds".split(),
}
_HUB_FREE = ("queues", "fds", "vhostfds")  # keys that QEMU rejects for -net, which is on a hub


class NetOption(Entry):
    """One -netdev, -nic or -net, with its effective type and its port forwards."""

    type: str = ""
    forwards: tuple[PortForward, ...] = ()  # on a tap or a network: every valid hostfwd=
    forward_fault: str = ""  # QEMU's message for the first invalid one

    @property
    def form(self) -> str:
        """The option's name: `netdev`, `nic` or `net`."""
        return self.option.name

    @property
    def is_backend(self) -> bool:
        """Whether it makes a netdev, rather than a NIC on the hub, or nothing."""
        return self.type not in ("none", "nic" if self.form == "net" else "none")

    @property
    def is_ours(self) -> bool:
        """Whether its type or one of its keys is an extension of qemu-netwrap."""
        return self.type in (*OUR_TYPES, SRIOV) or any(
            key in self.extension_keys for key in self.opts
        )

    @property
    def extension_keys(self) -> frozenset[str]:
        """The keys that are extensions with this type: QEMU's user network has a hostfwd= too."""
        return OUR_KEYS | {"hostfwd"} if self.type == "tap" else OUR_KEYS

    def value(self, key: str) -> str:
        """Return the value of KEY, empty when it was not given."""
        return self.opts.get(key) or ""

    def values(self, key: str) -> tuple[str, ...]:
        """Return every value of KEY, which may be given several times."""
        return self.opts.all(key)

    def has(self, key: str) -> bool:
        """Whether KEY was given, with whatever value."""
        return self.opts.get(key) is not None

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the boolean KEY, which `fault` has validated; DEFAULT if it is missing."""
        return numbers.BOOLEANS.get(self.value(key), default)

    @property
    def ifname(self) -> str:
        """The name of its tap, cut as QEMU cuts it; empty when none was given."""
        return names.as_qemu_cuts(self.value("ifname"))

    @property
    def queues(self) -> int:
        """The number of queues, by default 1, which `fault` has validated."""
        return (numbers.parse_uint32(self.value("queues")) or 0) if self.has("queues") else 1


def of_entry(entry: Entry) -> NetOption:
    """Return the network option for an entry of the groups netdev, nic or net."""
    kind = entry.opts.get("type")
    default = "user" if kind is None and entry.group == "nic" else ""
    type_ = kind or default
    taken = entry.opts.all("hostfwd") if type_ in ("tap", *OUR_TYPES) else ()
    return NetOption(entry.option, entry.opts, entry.settings, type_, *_forwards(taken))


def _forwards(texts: tuple[str, ...]) -> tuple[tuple[PortForward, ...], str]:
    """Return the valid rules of hostfwd=, and QEMU's message for the first invalid one, or ""."""
    found = []
    fault = ""
    for text in texts:
        try:
            found.append(qemu.hostfwd.parse(text))
        except ValueError as error:
            fault = fault or str(error)
    return tuple(found), fault


def parse(option: Option) -> NetOption | None:
    """Parse a single -netdev, -nic or -net; None if QEMU could not parse its argument."""
    opts = read_list(option.value or "", "type", option.name)
    return None if opts is None else of_entry(Entry(option, opts))


def nothing_more(_words: frozenset[str]) -> frozenset[str]:
    """Return that none of these words is known: there is no QEMU to query."""
    return frozenset()


def fault(net: NetOption, knows: Callable[[frozenset[str]], frozenset[str]] = nothing_more) -> str:
    """Return QEMU's message if it rejects this option; "" if no fault is found.

    KNOWS returns which of some unknown `TYPE` or `TYPE,KEY` words the QEMU in use supports.
    """
    if net.type == "none" and net.form != "netdev":
        return ""
    return next((wrong for wrong in _faults(net, knows) if wrong), "")


def _faults(net: NetOption, knows: Callable[[frozenset[str]], frozenset[str]]) -> Iterator[str]:
    """Yield the results of all checks in QEMU's order: a message, or "" if a check passes."""
    yield "Parameter 'id' is missing" if net.form == "netdev" and not net.has("id") else ""
    if net.type == SRIOV:
        yield qemu.sriov_options.fault(net.form, net.opts)
        return
    yield _type_fault(net, knows)
    kinds = _kinds(net)
    if net.type not in (*netdev_schema.TYPES, *OUR_TYPES):
        return  # a type of a newer QEMU
    given = dict.fromkeys(key.partition(".")[0] if net.is_modern else key for key in net.opts)
    strange = frozenset(key for key in given if key not in kinds)
    if strange:
        classic = net.type in MODERN and not net.is_modern
        if net.type not in (*OUR_TYPES, "tap", "bridge") and not classic:
            known = knows(frozenset(f"{net.type},{key}" for key in strange - OUR_KEYS))
            strange -= {word.partition(",")[2] for word in known}
        yield from (f"Invalid parameter '{key}'" for key in given if key in strange)
    for key in netdev_schema.REQUIRED.get(net.type, ()):
        yield "" if key in given else f"Parameter '{key}' is missing"
    for key, kind in kinds.items():
        yield _value_fault(net, key, kind) if key in given else ""
    yield _combination_fault(net)


def _type_fault(net: NetOption, knows: Callable[[frozenset[str]], frozenset[str]]) -> str:
    """Return what is wrong with the type, or ""."""
    if not net.has("type") and net.form != "nic":
        return "Parameter 'type' is missing"
    if net.type in OUR_TYPES:
        return ""
    if net.type == "nic" if net.form != "net" else net.type == "hubport":
        return f"network backend '{net.type}' is not for -{net.form}"
    if net.type == "none" and net.form == "netdev":
        return "network backend 'none' is not compiled into this binary"
    uncertain = net.type not in netdev_schema.TYPES or net.type in netdev_schema.OPTIONAL
    if uncertain and not knows(frozenset({net.type})):
        return f"Parameter 'type' does not accept value '{net.type}'"
    return ""


def _kinds(net: NetOption) -> dict[str, str]:
    """Return the keys of this option, extensions included, with their kinds."""
    if net.type in OUR_TYPES:
        found = {k: kind for k, kind in netdev_schema.keys_of("tap").items() if k not in _NOT_OURS}
    else:
        found = netdev_schema.keys_of(net.type)
    if net.type == "tap":
        found["network"] = "network"
    if net.type in ("tap", *OUR_TYPES):
        found["hostfwd"] = "hostfwd"
    if net.type in ("tap", "bridge"):
        found["uplink"] = "uplink"
    if net.form == "nic":
        found.update(netdev_schema.NIC_KEYS)
    return {"id": "str", "type": "str", **found}


def _value_fault(net: NetOption, key: str, kind: str) -> str:
    """Return what is wrong with the value of KEY, or ""."""
    if not isinstance(net.opts, OptList):
        wrong = net.opts.kind_fault(key, kind)
        if wrong or kind in ("list", "dict"):
            return wrong
    text = net.value(key)
    if kind == "hostfwd":
        return net.forward_fault
    if kind in _OUR_KINDS:
        return _our_value_fault(net, key, kind)
    if kind == "dict":
        return ""
    if key == "queues" and net.type in ("tap", *OUR_TYPES) and not numbers.fault(key, text, kind):
        wrong = f"Parameter 'queues' expects a number from 1 to {MAX_QUEUES}"
        return "" if 1 <= net.queues <= MAX_QUEUES else wrong
    return numbers.fault(key, text, kind)


def _our_value_fault(net: NetOption, key: str, kind: str) -> str:
    """Return what is wrong with the value of an extension key, or ""."""
    if not net.value(key):
        return f"Parameter '{key}' expects {_OUR_KINDS[kind]}"
    if kind == "uplink" and net.type == "tap" and not net.value("br"):
        return "Parameter 'uplink' needs br=, the bridge that takes it in"
    return ""


def _combination_fault(net: NetOption) -> str:
    """Return QEMU's message for keys that exclude each other, or ""."""
    if net.form == "net" and any(net.has(key) for key in _HUB_FREE) and net.type != "nic":
        return "Multiqueue tap cannot be used with hubs"
    if net.type == "tap":
        return _tap_fault(net)
    if net.type == "socket":
        return _socket_fault(net)
    if net.type == "dgram" and not any(key.startswith(("local", "remote")) for key in net.opts):
        return "dgram requires local= parameter"
    if net.type in MODERN and isinstance(net.opts, OptList):
        bare = [item.text for item in net.opts.items if item.flag]
        return f"Expected '=' after parameter '{bare[0]}'" if bare else ""
    return ""


def _socket_fault(net: NetOption) -> str:
    """Return the same for the keys of a socket (net/socket.c, `net_init_socket`)."""
    ways = [key for key in ("fd", "listen", "connect", "mcast", "udp") if net.has(key)]
    if len(ways) != 1:
        return "exactly one of listen=, connect=, mcast= or udp= is required"
    if net.has("udp") and not net.has("localaddr"):
        return "localaddr= is mandatory with udp="
    if net.has("localaddr") and ways[0] not in ("udp", "mcast"):
        return "localaddr= is only valid with mcast= or udp="
    return ""


def _tap_fault(net: NetOption) -> str:
    """Return the same for the keys of a tap (net/tap.c, `net_init_tap`)."""
    for key, others in _EXCLUDED_BY.items():
        if net.has(key):
            if any(net.has(other) for other in others):
                names = ", ".join(f"{other}=" for other in others[:-1])
                return f"{names}, and {others[-1]}= are invalid with {key}="
            break
    else:
        if net.has("vhostfds"):
            return "vhostfds= is invalid if fds= wasn't specified"
    for key in ("fd", "fds"):
        numbers_given = net.value(key).removesuffix(":").split(":") if net.has(key) else []
        wrong = [n for n in numbers_given if not (n.isascii() and n.isdigit())]
        if wrong:
            return f"Invalid file descriptor number '{wrong[0]}'"
    has_vhost_fd = net.has("vhostfd") or net.has("vhostfds")
    if has_vhost_fd and net.has("vhost") and not net.flag("vhost", default=True):
        return "vhostfd(s)= is not valid without vhost"
    if net.has("vhostfds") and _count(net, "fds") != _count(net, "vhostfds"):
        return "The number of fds passed does not match the number of vhostfds passed"
    return ""


def _count(net: NetOption, key: str) -> int:
    """Return how many descriptors KEY names."""
    return len(net.value(key).removesuffix(":").split(":"))
