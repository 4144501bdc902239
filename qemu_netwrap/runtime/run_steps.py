"""What a run acquires for a NIC, in order: the same code for `plan` and for the keeper."""

from __future__ import annotations

import os

from qemu_netwrap import networks, realm, resources, runtime
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.linux import files
from qemu_netwrap.model.mac import unpack
from qemu_netwrap.networks.base import NicRequest, nic_driver
from qemu_netwrap.resources.base import Resource
from qemu_netwrap.resources.dhcp_hosts import DhcpHost
from qemu_netwrap.resources.links import AttachedTap, link_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.run import PortForward, TapRequest
    from qemu_netwrap.resources.base import Context
    from qemu_netwrap.resources.nftables import PortForwardChains
    from qemu_netwrap.runtime.membership import NetworkInfo

Step = tuple[Resource, ...]  # acquired in parallel

_MAC_ATTEMPTS = 1 << 16  # VMs with the same key: each first tries the MACs of those before it


class Choice:
    """How the keeper chooses what the command line leaves open; `plan` uses a subclass."""

    def __init__(self, run: str, work: Context) -> None:
        """Choose for RUN."""
        self.run = run
        self.work = work

    def attached(self, nic: TapRequest) -> Resource | None:
        """Return QEMU's own tap as a port of its bridge, None without one. Raises `HostError`."""
        return _attached(nic, self.work) if nic.foreign else None

    def mac(self, nic: TapRequest, number: int) -> str:
        """Return the MAC of guest NIC NUMBER. Raises `NetwrapError` when none is free."""
        return _choose_mac(nic, number, self.run, self.work)

    def steps(self, steps: Iterator[Step], bridge: str) -> Iterator[Step]:
        """Yield the steps that choose MACs and addresses, holding the MACs' lock.

        So of two runs that look for a free MAC at the same time, the second sees the first's.
        """
        with files.Lock(self.work.state.macs_lock):
            if _has_elders(bridge, self.work):
                runtime.addresses.claim_for_elders(bridge, self.work)
            yield from steps


class NicSteps:
    """The steps of one NIC, which are taken one by one, and their results."""

    def __init__(
        self, nic: TapRequest, info: NetworkInfo, names: Iterator[str], choice: Choice
    ) -> None:
        """Prepare the steps of NIC, on a network that is up as INFO says; NAMES are the guest's."""
        self._nic = nic
        self._info = info
        self._names = names
        self._choice = choice
        self._addresses: list[tuple[str, str]] = []
        self.macs: tuple[str, ...] = ()
        self.forwards: tuple[PortForward, ...] = ()

    def __iter__(self) -> Iterator[Step]:
        """Yield each step: the caller acquires its resources before it takes the next one."""
        nic, info, choice = self._nic, self._info, self._choice
        driver = nic_driver(nic.network)
        attached = choice.attached(nic)
        request = NicRequest(nic, choice.run, info.address, info.address6, attached)
        yield driver.nic_resources(request)
        yield from choice.steps(self._guest_nics(), nic.network.bridge)
        yield driver.nic_filters(request, self.macs)
        self.forwards, chains = forwards_of(nic, self._addresses, info)
        yield chains
        if self.forwards and not realm.is_system():
            led = " ".join(map(str, self.forwards))
            yield (resources.port_relay.PortRelay(nic.tap, led, choice.run),)

    def _guest_nics(self) -> Iterator[Step]:
        """Yield a name, a MAC and perhaps addresses for each guest NIC behind the port."""
        nic, info, choice = self._nic, self._info, self._choice
        bridge = nic.network.bridge
        for number in range(len(nic.macs)):
            mac = choice.mac(nic, number)
            label = next(self._names)
            address = own_address(nic, number, (mac, label), info, choice.work)
            yield (DhcpHost(bridge, choice.run, mac, label, *address, nic.is_guarded),)
            self.macs = (*self.macs, mac)
            self._addresses.append(address)


def _has_elders(bridge: str, work: Context) -> bool:
    """Whether an older version made a network's guests: it recorded no names or addresses."""
    folder = work.state.network(bridge)
    if any(os.path.isdir(f"{folder}/{name}") for name in ("names", "addresses")):
        return False
    return bool(files.listdir(f"{folder}/hosts"))


def own_address(
    nic: TapRequest, number: int, known_as: tuple[str, str], info: NetworkInfo, work: Context
) -> tuple[str, str]:
    """Return the IPv4 and IPv6 address reserved for guest NIC NUMBER, KNOWN_AS (MAC, name).

    One is "" where DHCP may give any address. Forwards lead to the first of several NICs.
    """
    is_led_to = bool(nic.forwards) and number == 0
    is_guarded = nic.is_guarded and bool(info.address)
    if not (nic.network.addresses or is_led_to or is_guarded):
        return "", ""

    address, address6 = "", ""
    if nic.network.addresses or is_led_to:
        address = runtime.addresses.address_for(nic, known_as, info, work, needed=is_led_to)
    if is_led_to:
        address6 = networks.port_forwards.address6_for(nic, known_as[0], info.address6)
    if is_guarded:
        address = address or runtime.addresses.free_address(nic, known_as[0], info, work)
        address6 = address6 or runtime.addresses.slaac_address(known_as[0], info)
    return address, address6


def forwards_of(
    nic: TapRequest, addresses: list[tuple[str, str]], info: NetworkInfo
) -> tuple[tuple[PortForward, ...], tuple[PortForwardChains, ...]]:
    """Return the forwards that lead to a NIC with ADDRESSES (IPv4, IPv6), and their nft chains.

    Raises `HostError` for a forward that leads out of the network.
    """
    if not nic.forwards:
        return (), ()

    gateways = [each for each in (info.address, info.address6) if each]
    forwards = networks.port_forwards.resolved(nic, next(iter(addresses), ("", "")), gateways)
    rules = networks.port_forwards.rules(nic.tap, info.bridge, gateways, forwards)
    return forwards, (resources.nftables.PortForwardChains(nic.tap, rules),)


def _attached(nic: TapRequest, work: Context) -> AttachedTap:
    """Return the tap that QEMU made as a port of the NIC's bridge, with its former settings."""
    bridge = nic.network.bridge
    tap, master = link_named(work.rtnl, nic.tap), link_named(work.rtnl, bridge)
    other = work.rtnl.index_name(tap.master) if tap.master not in (0, master.index) else ""
    if other:
        raise HostError(
            f"{nic.tap} is a port of {other} already",
            f"take it out of there: ip link set {nic.tap} nomaster",
        )
    plugged = tap.master == master.index
    isolated = nic.network.isolated and not tap.isolated
    return AttachedTap(
        nic.tap, tap.index, bridge, unpack(tap.mac), tap.mtu, tap.up, plugged, isolated
    )


def _choose_mac(nic: TapRequest, number: int, run: str, work: Context) -> str:
    """Return the MAC of a guest NIC: the user's, or a derived one that no living run has.

    No living run on any network of this host: networks can meet on a bridge outside. A guest that
    migrates here keeps its MAC, even beside the run that it comes from. Raises `NetwrapError`.
    """
    given = nic.macs[number]
    for attempt in range(_MAC_ATTEMPTS):
        mac = given or nic.own_mac(number, attempt)
        holder, bridge = work.state.mac_holder(mac, nic.network.bridge)
        is_kept = given or nic.incoming
        if is_kept and holder and bridge == nic.network.bridge:
            whose = "another NIC of this command" if holder == run else f"run {holder}"
            late = "" if holder == run else ", which keeps it until it ends"
            work.say(f"{nic.label}: MAC {mac} is in use by {whose} on {bridge}{late}")
        if is_kept or not holder:
            return mac
    raise NetwrapError(f"{nic.label}: no free MAC found", "give the NIC a mac= of its own")
