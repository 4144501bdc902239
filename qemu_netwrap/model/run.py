"""A run: what it asks for, the NICs of its guest, and what each of them got."""

from __future__ import annotations

from qemu_netwrap.model import mac
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.network import Network


class PortForward(Record):
    """A port of the host that leads to one of a guest's."""

    protocol: str  # tcp or udp
    host: str  # the host's address that it is for; empty: all of them
    port: int
    guest: str  # empty: the NIC's own
    guest_port: int
    is_ipv6: bool = False

    @property
    def is_for_loopback(self) -> bool:
        """Whether it is for one of the host's loopback addresses alone."""
        return self.host.startswith("127.") or self.host == "::1"

    def __str__(self) -> str:
        """Return it as QEMU is told it."""
        host = f"[{self.host or '::'}]" if self.is_ipv6 else self.host
        guest = f"[{self.guest}]" if self.is_ipv6 and self.guest else self.guest
        return f"{self.protocol}:{host}:{self.port}-{guest}:{self.guest_port}"

    def meets(self, other: PortForward) -> bool:
        """Whether one and the same packet could be for both."""
        own, others = (self.protocol, self.port), (other.protocol, other.port)
        same_family = self.is_ipv6 == other.is_ipv6
        return (
            own == others
            and same_family
            and (self.host == other.host or not self.host or not other.host)
        )


class TapRequest(Record):
    """A tap that the command line asks of us, and the guest's NICs behind it.

    That is one NIC but for QEMU's hub (-net), which may have several or none.
    """

    label: str  # as messages call it: the netdev's id, or the option as typed
    network: Network
    tap: str  # the interface's name
    macs: tuple[str, ...] = ()  # one a guest NIC: the user's, or empty where it is ours to give
    mac_key: tuple[str, ...] = ()  # what MACs of ours are derived from
    queues: int = 1
    vhost: bool = False
    vnet_hdr: bool = True
    foreign: bool = False  # QEMU has made the tap: it is only plugged
    forwards: tuple[PortForward, ...] = ()  # ports of the host that lead to it
    is_alone: bool = True  # no other netdev's packets come by this tap, as they do on a hub
    restored: bool = False  # QEMU loads a state, and with it perhaps another MAC
    incoming: bool = False  # that state comes from another QEMU, which may be here still

    @property
    def filters_ips(self) -> bool:
        """Whether what it sends goes through its network's filter block."""
        return self.is_alone and self.network.filters_ips

    @property
    def is_guarded(self) -> bool:
        """Whether no other guest of its network can speak for its addresses."""
        return self.filters_ips and not self.restored

    def own_mac(self, number: int, attempt: int = 0) -> str:
        """Return a MAC of ours for guest NIC NUMBER: always the same; another each ATTEMPT."""
        return mac.derive(*self.mac_key, str(number), attempt=attempt)


class RunSpec(Record):
    """What a run asks for: its NICs, and what `ps` will say of it."""

    run: str
    nics: tuple[TapRequest, ...] = ()
    guest: str = ""  # the guest's host name
    command: str = ""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks the run needs, each once, in the order first named.

        Of several NICs on a bridge one may name its uplink.
        """
        found: dict[str, Network] = {}
        for network in (nic.network for nic in self.nics):
            known = found.setdefault(network.bridge, network)
            found[network.bridge] = known if known.uplink else network
        return tuple(found.values())


class Attachment(Record):
    """What a netdev of ours is to QEMU: a type that it has, and the keys that say what it gets.

    A tap or a stream socket by its descriptor (`addr.type=fd,addr.str=N`), or a device of the host
    by its name. Without the user's KEYS no more than the netdev's id stays of what was typed.
    """

    type: str
    pairs: tuple[tuple[str, str], ...]
    keys: bool = True  # the user's keys of a tap go with it, but for those that it replaces


class TapDescriptors(Record):
    """What a NIC got: the tap's descriptors, one a queue, and those of vhost-net; its MACs."""

    fds: tuple[str, ...]
    vhost_fds: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()


class DeviceInfo(Record):
    """A device of the host that a run passes through, as `ps` shows it."""

    label: str
    bdf: str
    pf: str  # of a virtual function: its physical one's interface, or else address
    mac: str  # that it was given; empty if it has its own
