"""QEMU's network options: what one -netdev, -nic or -net says, and whether QEMU would take it.

Keys and their types are those of QEMU's qapi/net.json; that `fd` excludes others is
net/tap.c, `net_init_tap`; how ids must look is util/id.c.
"""

from __future__ import annotations

from qemu_netwrap.core.model import BRIDGE, HOST_ONLY, NAT
from qemu_netwrap.core.numbers import BOOLEANS, is_size, parse_uint32
from qemu_netwrap.core.optlist import OptList
from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.jsonopts import JsonObject
    from qemu_netwrap.core.words import Option

OUR_TYPES = frozenset({NAT, HOST_ONLY})
OUR_KEYS = frozenset({"network"})
TAP_KEYS = frozenset(
    "id type ifname fd fds script downscript br helper sndbuf vnet_hdr vhost vhostfd vhostfds"
    " vhostforce queues poll-us".split()
)
# What of a tap's keys makes sense on a network of ours, whose tap QEMU gets by descriptor.
OUR_TAP_KEYS = TAP_KEYS - frozenset("fd fds script downscript br helper vhostfd vhostfds".split())
BRIDGE_KEYS = frozenset({"id", "type", "br", "helper"})
NIC_KEYS = frozenset({"mac", "model"})  # what -nic takes beside its backend's keys
HUB_FREE = frozenset({"queues", "fds", "vhostfds"})  # what a -net tap, on its hub, cannot have
_BOOLEAN_KEYS = ("vnet_hdr", "vhost", "vhostforce")
_NUMBER_KEYS = ("queues", "poll-us")
_HUB_NIC_KEYS = frozenset(
    "id type netdev macaddr model addr vectors".split()
)  # what -net nic takes
_FREE_IDS = ("stream", "dgram")  # of the new syntax, whose ids are not checked
MAX_QUEUES = 256  # MAX_TAP_QUEUES, drivers/net/tun.c


class NetOption(Record):
    """One -netdev, -nic or -net: its argument's elements, and the type and id that count."""

    option: Option
    opts: OptList | JsonObject
    type: str
    id: str

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
        """Whether it has a word that only we understand."""
        return self.type in OUR_TYPES or any(key in OUR_KEYS for key in self.opts)

    def value(self, key: str) -> str:
        """Return the value of KEY, empty when it was not given."""
        return self.opts.get(key) or ""

    def has(self, key: str) -> bool:
        """Whether KEY was given, with whatever value."""
        return self.opts.get(key) is not None

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the boolean KEY, which `fault` has found to be one."""
        return BOOLEANS.get(self.value(key), default)

    @property
    def queues(self) -> int:
        """The number of queues, which `fault` has found to be one."""
        return (parse_uint32(self.value("queues")) or 0) if self.has("queues") else 1


def parse(option: Option) -> NetOption | None:
    """Read a -netdev, -nic or -net; None when its argument is no list that QEMU could read.

    JSON is for -netdev alone (net/net.c, `netdev_is_modern`).
    """
    text = option.value or ""
    opts = read_list(text, "type") if option.name == "netdev" else OptList.parse(text, "type")
    if opts is None:
        return None
    default = "user" if option.name == "nic" else ""
    return NetOption(option, opts, opts.get("type") or default, opts.get("id") or "")


def read_list(text: str, implied: str) -> OptList | JsonObject | None:
    """Read an option's argument, key=value list or JSON; None when it is JSON that is none."""
    if not text.startswith("{"):
        return OptList.parse(text, implied)
    # Here, because json costs more than the rest of the launch path's imports together.
    from qemu_netwrap.core.jsonopts import JsonObject

    try:
        return JsonObject.parse(text)
    except ValueError:
        return None


def fault(net: NetOption) -> str:
    """Say in QEMU's words why QEMU refuses this option; empty if nothing is seen to be wrong.

    Only options that we would act on are looked at closely; the others are QEMU's alone.
    """
    if net.form == "netdev" and not net.has("id"):
        return "Parameter 'id' is missing"
    checked = isinstance(net.opts, OptList) and net.type not in _FREE_IDS
    if net.has("id") and checked and not valid_id(net.id):
        return "Parameter 'id' expects an identifier"
    if net.form == "net" and net.type == "nic":
        return next(
            (f"Invalid parameter '{key}'" for key in net.opts if key not in _HUB_NIC_KEYS), ""
        )
    if net.type not in (*OUR_TYPES, "tap", BRIDGE):
        return "Invalid parameter 'network'" if net.is_ours else ""
    for key in net.opts:
        if key not in _allowed(net):
            return f"Invalid parameter '{key}'"
    return _value_fault(net)


def _allowed(net: NetOption) -> frozenset[str]:
    """Return the keys that QEMU, or we, know for this option."""
    base = {"tap": TAP_KEYS | OUR_KEYS, BRIDGE: BRIDGE_KEYS}.get(net.type, OUR_TAP_KEYS)
    if net.form == "net":
        base -= HUB_FREE
    return base | NIC_KEYS if net.form == "nic" else base


def _value_fault(net: NetOption) -> str:
    """Say which value is not of its key's type."""
    for key in _BOOLEAN_KEYS:
        if net.has(key) and not (_typed(net, key, bool) and net.value(key) in BOOLEANS):
            return f"Parameter '{key}' expects 'on' or 'off'"
    for key in _NUMBER_KEYS:
        if net.has(key) and not (_typed(net, key, int) and _is_number(net.value(key))):
            return f"Parameter '{key}' expects a uint64 value"
    if not 1 <= net.queues <= MAX_QUEUES:
        return f"Parameter 'queues' expects a number from 1 to {MAX_QUEUES}"
    if net.has("sndbuf") and isinstance(net.opts, OptList) and not is_size(net.value("sndbuf")):
        return "Parameter 'sndbuf' expects a size value"
    if net.has("network") and not net.value("network"):
        return "Parameter 'network' expects a network's name"
    return ""


def _typed(net: NetOption, key: str, kind: type) -> bool:
    """Whether a value has its type, where a value has one: in JSON."""
    return isinstance(net.opts, OptList) or net.opts.has_type(key, kind)


def _is_number(text: str) -> bool:
    """Whether TEXT is a number of 32 bits."""
    return parse_uint32(text) is not None


def valid_id(text: str) -> bool:
    """Whether TEXT is an id to QEMU: a letter, then letters, digits, `-`, `.` and `_`."""
    if not text.isascii() or not text[:1].isalpha():
        return False
    return all(char.isalnum() or char in "-._" for char in text)
