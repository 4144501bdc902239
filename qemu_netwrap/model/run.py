"""A run: what it requests, the NICs of its guest, and what each of them got."""

from __future__ import annotations

from qemu_netwrap.model import mac
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.network import Network


class PortForward(Record):
    """A rule that forwards a port of the host to a port of a guest."""

    protocol: str  # tcp or udp
    host: str  # the host address that packets are for; empty: any
    port: int
    guest: str  # the guest's address; empty: the NIC's own
    guest_port: int
    is_ipv6: bool = False

    @property
    def is_for_loopback(self) -> bool:
        """Whether it is for a loopback address of the host only."""
        return self.host.startswith("127.") or self.host == "::1"

    def __str__(self) -> str:
        """Return it as a value of QEMU's hostfwd=."""
        host = f"[{self.host or '::'}]" if self.is_ipv6 else self.host
        guest = f"[{self.guest}]" if self.is_ipv6 and self.guest else self.guest
        return f"{self.protocol}:{host}:{self.port}-{guest}:{self.guest_port}"

    def meets(self, other: PortForward) -> bool:
        """Whether both could match the same packet."""
        own, others = (self.protocol, self.port), (other.protocol, other.port)
        same_family = self.is_ipv6 == other.is_ipv6
        return (
            own == others
            and same_family
            and (self.host == other.host or not self.host or not other.host)
        )


class TapRequest(Record):
    """A tap that the command line requests, and the guest's NICs behind it.

    That is one NIC, except on QEMU's hub (-net), which may have several or none.
    """

    label: str  # for messages: the netdev's id, or the option as typed
    network: Network
    tap: str  # the interface's name
    macs: tuple[str, ...] = ()  # one per guest NIC: the user's, or empty if one is to be derived
    mac_key: tuple[str, ...] = ()  # what MACs are derived from
    queues: int = 1
    vhost: bool = False
    vnet_hdr: bool = True
    foreign: bool = False  # QEMU created the tap: it is only attached to the bridge
    forwards: tuple[PortForward, ...] = ()  # port forwards to it
    is_alone: bool = True  # no other netdev's packets pass this tap, as on a hub they do
    restored: bool = False  # QEMU loads a saved state, perhaps with another MAC
    incoming: bool = False  # migration: the other QEMU may still run on this host

    @property
    def filters_ips(self) -> bool:
        """Whether its packets pass its network's filter block."""
        return self.is_alone and self.network.filters_ips

    @property
    def is_guarded(self) -> bool:
        """Whether no other guest of its network can claim its addresses."""
        return self.filters_ips and not self.restored

    def own_mac(self, number: int, attempt: int = 0) -> str:
        """Return the derived MAC of guest NIC NUMBER: always the same; another for each ATTEMPT."""
        return mac.derive(*self.mac_key, str(number), attempt=attempt)


class RunSpec(Record):
    """What a run requests: its NICs, and what `ps` shows of it."""

    run: str
    nics: tuple[TapRequest, ...] = ()
    guest: str = ""  # the guest's host name
    command: str = ""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks the run needs, each once, in the order first named.

        If several NICs are on a bridge, any of them may name its uplink.
        """
        found: dict[str, Network] = {}
        for network in (nic.network for nic in self.nics):
            known = found.setdefault(network.bridge, network)
            found[network.bridge] = known if known.uplink else network
        return tuple(found.values())


class Attachment(Record):
    """What replaces a netdev on QEMU's command line: a type of QEMU's, and its keys.

    A tap or a stream socket by its descriptor (`addr.type=fd,addr.str=N`), or a device of the host
    by its name. If KEYS is false, only the netdev's id is kept of what the user typed.
    """

    type: str
    pairs: tuple[tuple[str, str], ...]
    keys: bool = True  # keep the user's keys of a tap, except those replaced


class TapDescriptors(Record):
    """What a NIC got: the tap's descriptors, one per queue, those of vhost-net, and its MACs."""

    fds: tuple[str, ...]
    vhost_fds: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()


class DeviceInfo(Record):
    """A device of the host that is passed through to a run's guest, as `ps` shows it."""

    label: str
    bdf: str
    pf: str  # of a VF: the interface of its PF, or else its address
    mac: str  # the MAC set on it; empty if it keeps its own
