"""The plan of a run: which NICs are ours, and what they need.

Pure: `questions` says what must be known of the host, and the answers are passed in as `Facts`.
"""

from __future__ import annotations

from qemu_netwrap import networks
from qemu_netwrap.errors import UsageError
from qemu_netwrap.model import names
from qemu_netwrap.model.run import RunSpec, TapRequest
from qemu_netwrap.networks.base import nic_driver
from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.qemu.netdev_options import SRIOV
from qemu_netwrap.qemu.option_groups import read_list
from qemu_netwrap.qemu.rewrite import AttachedNic, rewrite
from qemu_netwrap.record import Record
from qemu_netwrap.runtime.network_choice import needs_default, network_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from qemu_netwrap.model.network import Config, Network
    from qemu_netwrap.model.run import PortForward, TapDescriptors
    from qemu_netwrap.qemu.command_line import CommandLine, Option
    from qemu_netwrap.qemu.guest_nics import GuestNic
    from qemu_netwrap.qemu.json_options import JsonObject
    from qemu_netwrap.qemu.netdev_options import NetOption
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.qemu.readconfig import ConfigFile
    from qemu_netwrap.qemu.rewrite import Rewritten


class Questions(Record):
    """What a plan must know of the host."""

    ifnames: tuple[str, ...] = ()  # which of these interfaces exist?
    host_bridge: bool = False  # which bridge carries the default route, if one does?


class Facts(Record):
    """The answers to `Questions`, and what is known of the run."""

    run: str
    machine: str = ""  # the host's identity
    existing: tuple[str, ...] = ()
    host_bridge: str = ""
    folder: str = ""  # the current working directory
    agreed: bool = False  # --yes-uplink


class PlannedNic(Record):
    """A NIC of ours, and the options that change for it."""

    nic: TapRequest
    net: NetOption
    guest_nics: tuple[GuestNic, ...] = ()  # one for each of nic.macs


class Plan(Record):
    """What to provision for one run. Without NICs the launcher only becomes QEMU."""

    line: CommandLine
    run: str
    nics: tuple[PlannedNic, ...] = ()
    guest: str = ""  # the guest's host name
    files: Mapping[int, ConfigFile] = {}
    notes: tuple[str, ...] = ()  # what QEMU itself would do silently
    vm: str = ""  # the key that identifies the VM: see `vm_key`
    details: tuple[str, ...] = ()  # notes that only -v and `plan` show

    @property
    def wanted(self) -> RunSpec:
        """What the run asks for, without its place in the command line."""
        nics = tuple(planned.nic for planned in self.nics)
        return RunSpec(self.run, nics, self.guest, " ".join(self.line.words))

    def rewritten(self, grants: Mapping[str, TapDescriptors]) -> Rewritten:
        """Return QEMU's new command line; GRANTS has each NIC's descriptors, by tap name."""
        return rewrite(self.line, self.files, (_granted(p, grants[p.nic.tap]) for p in self.nics))


def _granted(planned: PlannedNic, grant: TapDescriptors) -> AttachedNic:
    """Return what QEMU gets for a NIC, as its network's driver says."""
    nic = planned.nic
    attachment = nic_driver(nic.network).attachment(nic, grant)
    return AttachedNic(planned.net, planned.guest_nics, attachment, grant.macs)


def questions(reading: NetworkOptions, config: Config, chosen: str = "") -> Questions:
    """Return what must be known of the host to plan READING; CHOSEN is --network's value."""
    ours = [net for net in reading.netdevs if not reading.is_user_managed(net)]
    asked = (net.ifname for net in ours if net.ifname)
    ifnames = tuple(name for ifname in asked for name in names.numbered(ifname) or (ifname,))
    plain = any(needs_default(net) for net in ours)
    return Questions(ifnames, plain and not (chosen or config.default))


def make(
    reading: NetworkOptions, config: Config, facts: Facts, chosen: str = "", chosen_by: str = ""
) -> Plan:
    """Decide everything about a run. Raises `UsageError` with what is wrong and the remedy."""
    nics: list[PlannedNic] = []
    placed: set[Option] = set()
    existing = frozenset(facts.existing)
    taken = set(existing)
    described = _with_sections(reading)
    vm = vm_key(described, facts.folder)
    loading = {option.name for option in reading.line.named("incoming", "loadvm")}
    for net in reading.netdevs:
        if net.type == SRIOV:
            continue  # no tap: passthrough.devices handles it
        if reading.is_user_managed(net):
            _refuse_our_keys(net, reading.user_keys(net))
        elif net.is_ours or net.ifname not in existing:
            network = network_of(net, config, chosen, facts.host_bridge, chosen_by)
            if network.uplink and facts.agreed:
                network = network.replace(agreed=True)
            # The NICs of a hub are behind each of its taps: they are planned with the first tap.
            guest_nics = tuple(n for n in reading.nics_on(net) if n.entry.option not in placed)
            placed.update(guest_nic.entry.option for guest_nic in guest_nics)
            index = len(nics)
            tap = _ifname(net, taken) or names.tap_name(facts.run, index)
            taken.add(tap)
            key = (facts.machine, vm, str(index))
            planned = _planned(net, network, guest_nics, tap, key)
            nic = planned.nic.replace(
                is_alone=len(reading.wiring.sharing(net)) == 1,
                restored=bool(loading),
                incoming="incoming" in loading,
            )
            nics.append(planned.replace(nic=nic))
    _refuse_twins(nics)
    if any(planned.nic.forwards for planned in nics):
        networks.port_forwards.refuse_twins(planned.nic for planned in nics)
    _refuse_two_uplinks(nics)
    guest = guest_name(described)
    return Plan(
        reading.line,
        facts.run,
        tuple(nics),
        guest,
        reading.files,
        (*_notes(nics), *_reserved(nics, guest)),
        vm,
        tuple(_details(nics)),
    )


def _with_sections(reading: NetworkOptions) -> CommandLine:
    """Return the command line with what its -readconfig files say of the VM's name and disks."""
    if not reading.files:
        return reading.line
    places: dict[int, list[Option]] = {
        at: [
            file.place(number, at)
            for number, section in enumerate(file.sections)
            if section.group in ("name", "drive")
        ]
        for at, file in reading.files.items()
    }
    options = places.get(-1, [])
    for option in reading.line.options:
        options += [option, *places.get(option.at, ())]
    return reading.line.replace(options=tuple(options))


def guest_name(line: CommandLine) -> str:
    """Return the guest's host name: -name as a DNS label, "" without one."""
    return names.host_label(_last(line, "name", "guest"))


def vm_key(line: CommandLine, folder: str = "") -> str:
    """Return what identifies the VM: -name, else -uuid, else its disk, else the whole command line.

    A disk is identified by its path (in FOLDER if relative), whichever option names it.
    """
    named = _last(line, "name", "guest") or _last(line, "uuid")
    disk = next((path for path in _disks(line) if path), "")
    if disk and not disk.startswith("/"):
        disk = f"{folder}/{disk.removeprefix('./')}"
    return named or disk or "\0".join(line.words)


def _disks(line: CommandLine) -> Iterator[str]:
    """Yield the paths of the VM's disks, then its kernel, last the CD it was installed from."""
    yield from line.images
    for option in line.named("hda", "hdb", "hdc", "hdd", "drive", "blockdev"):
        text = option.value or ""
        if option.name == "drive":
            opts = read_list(text, "file")
            is_disk = opts and opts.get("if") != "pflash" and opts.get("media") != "cdrom"
            yield (opts.get("file") or "") if opts and is_disk else ""
        elif option.name == "blockdev":
            yield _file_of(read_list(text, "driver"))
        else:
            yield text
    yield from (option.value or "" for option in line.named("kernel"))
    yield from (option.value or "" for option in line.named("cdrom"))


def _file_of(opts: OptList | JsonObject | None) -> str:
    """Return the file of a writable -blockdev (no firmware, no CD); "" if it has none."""
    if opts is None or (opts.get("read-only") or "") in ("on", "true", "yes", "y"):
        return ""
    inner = read_list(opts.get("file") or "", "driver")
    nested = inner.get("filename") if inner and (opts.get("file") or "").startswith("{") else ""
    return opts.get("filename") or opts.get("file.filename") or nested or ""


def _planned(
    net: NetOption,
    network: Network,
    guest_nics: tuple[GuestNic, ...],
    tap: str,
    key: tuple[str, ...],
) -> PlannedNic:
    """Return the NIC on a netdev of ours; MACs that the user does not set are derived from KEY."""
    wrong = names.ifname_fault(tap)
    if wrong:
        raise UsageError(f"{net.option.typed}: ifname {tap!r} {wrong}", "choose another ifname=")
    nic = TapRequest(
        label=net.id or net.option.typed,
        network=network,
        tap=tap,
        macs=tuple(guest_nic.mac for guest_nic in guest_nics),
        mac_key=key,
        queues=net.queues,
        vhost=net.flag("vhost", default=net.flag("vhostforce", default=False)),
        vnet_hdr=net.flag("vnet_hdr", default=True),
        forwards=_forwards(net, network, guest_nics),
    )
    return PlannedNic(nic, net, guest_nics)


def _forwards(
    net: NetOption, network: Network, guest_nics: tuple[GuestNic, ...]
) -> tuple[PortForward, ...]:
    """Return the port forwards (hostfwd=) of a netdev of ours."""
    if not net.has("hostfwd"):
        return ()

    return networks.port_forwards.wanted(net, network, has_nic=bool(guest_nics))


def _ifname(net: NetOption, taken: Container[str]) -> str:
    """Return the name that a netdev of ours asks for its tap; "" if it asks for none."""
    numbered = names.numbered(net.ifname)
    return next((name for name in numbered if name not in taken), net.ifname)


def _notes(nics: list[PlannedNic]) -> Iterator[str]:
    """Yield what QEMU itself would do silently, as far as it concerns our NICs."""
    for planned in nics:
        net, typed = planned.net, planned.net.value("ifname")
        if typed != net.ifname:
            yield f"{net.option.typed}: over 15 bytes, so QEMU cuts the ifname to {net.ifname}"
        if net.type == "tap" and net.has("br") and not net.has("uplink"):
            yield (
                f"{net.option.typed}: QEMU ignores br= without helper=; here the tap is on"
                f" {planned.nic.network.bridge}"
            )


def _details(nics: list[PlannedNic]) -> Iterator[str]:
    """Yield a note for each NIC that has no MAC filter although its network filters MACs."""
    for nic in (planned.nic for planned in nics):
        if nic.restored and nic.network.filters_macs:
            word = "-incoming" if nic.incoming else "-loadvm"
            yield f"{nic.label}: no MAC filter, since {word} may bring the guest another MAC"


def _reserved(nics: list[PlannedNic], guest: str) -> Iterator[str]:
    """Yield a note if the guest gets no DNS name because its own is reserved there."""
    if guest in names.RESERVED and any(p.nic.network.traits.is_routed for p in nics):
        yield (
            f"-name {guest}: the guest has no name in DNS, where {guest} means something else;"
            " remedy: choose another -name"
        )


def _refuse_our_keys(net: NetOption, theirs: tuple[str, ...]) -> None:
    """Refuse a type or key of ours on a netdev that the user sets up with the keys THEIRS."""
    if net.is_ours:
        ours = next((f"{key}=" for key in sorted(net.extension_keys) if net.has(key)), net.type)
        if not theirs:
            raise UsageError(
                f"{net.option.typed}: {ours} is for a tap, and {net.type} is none",
                f"write tap instead, or leave out {ours}",
            )
        raise UsageError(
            f"{net.option.typed}: {theirs[0]}= cannot stand beside {ours}",
            f"leave out {theirs[0]}=: the tap is made and set up for you",
        )


def _refuse_twins(nics: list[PlannedNic]) -> None:
    """Refuse one interface name for two interfaces: names are unique. Raises `UsageError`."""
    seen: set[str] = set()
    bridges = {planned.nic.network.bridge for planned in nics}
    for planned in nics:
        if planned.nic.tap in bridges:
            raise UsageError(
                f"{planned.net.option.typed}: ifname {planned.nic.tap} is a bridge's name in this"
                " command",
                "choose another ifname=, or leave it out: a free name is found",
            )
        if planned.nic.tap in seen:
            raise UsageError(
                f"{planned.net.option.typed}: ifname {planned.nic.tap} is taken by another NIC of"
                " this command",
                "give each NIC an ifname= of its own, or none",
            )
        seen.add(planned.nic.tap)


def _refuse_two_uplinks(nics: list[PlannedNic]) -> None:
    """Refuse two uplinks for one bridge, and one uplink for two bridges. Raises `UsageError`."""
    pairs = {(p.nic.network.uplink, p.nic.network.bridge): p for p in nics if p.nic.network.uplink}
    if len(pairs) > min(len({up for up, _ in pairs}), len({bridge for _, bridge in pairs})):
        planned = list(pairs.values())[-1]
        raise UsageError(
            f"{planned.net.option.typed}: an uplink is for one bridge, and a bridge has one uplink",
            "name another bridge by br=, or another NIC by uplink=",
        )


def _last(line: CommandLine, name: str, key: str = "") -> str:
    """Return the last value given for an option, or for a key (which may be implied) in it."""
    value = ""
    for option in line.named(name):
        text = option.value or ""
        value = (OptList.parse(text, key).get(key) or value) if key else text
    return value
