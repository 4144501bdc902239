"""The network options of a command line: its netdevs, and the faults that QEMU would report."""

from __future__ import annotations

from qemu_netwrap import model, qemu
from qemu_netwrap.errors import UsageError
from qemu_netwrap.model import names, numbers
from qemu_netwrap.qemu import guest_nics, netdev_options, netdev_schema, option_groups
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qemu_netwrap.qemu.command_line import CommandLine, Option
    from qemu_netwrap.qemu.guest_nics import GuestNic, Wiring
    from qemu_netwrap.qemu.netdev_options import NetOption
    from qemu_netwrap.qemu.option_groups import Groups
    from qemu_netwrap.qemu.readconfig import ConfigFile

    Knows = Callable[[frozenset[str]], frozenset[str]]
    Faults = Iterator[tuple[Option, str]]

USER_DECIDES = ("fd", "fds", "helper", "vhostfd", "vhostfds")
SCRIPTS = ("script", "downscript")
NO_SCRIPT = ("", "no")
MAX_NICS = 8  # MAX_NICS, QEMU's include/net/net.h: of -nic and -net nic together


class NetworkOptions(Record):
    """A command line's network options, and how QEMU would connect them."""

    line: CommandLine
    files: Mapping[int, ConfigFile]
    groups: Groups
    nets: tuple[NetOption, ...]  # every -netdev, -nic and -net, sections of files included
    wiring: Wiring

    @property
    def netdevs(self) -> tuple[NetOption, ...]:
        """Every netdev, in the order typed."""
        return self.wiring.netdevs

    @property
    def uses_extensions(self) -> bool:
        """Whether some netdev uses an extension, which QEMU would reject."""
        return any(net.is_ours for net in self.netdevs)

    @property
    def needs_provisioning(self) -> bool:
        """Whether qemu-netwrap has something to provision, if the command line is valid."""
        return self.may_pass_through or any(
            net.is_ours or not self.is_user_managed(net) for net in self.netdevs
        )

    @property
    def may_pass_through(self) -> bool:
        """Whether devices of the host may be passed through: a cheap check before a costly one."""
        return any(net.type == netdev_options.SRIOV for net in self.netdevs) or any(
            (entry.opts.get("driver") or "").startswith("vfio-pci")
            for entry in self.groups.of("device")
        )

    def is_user_managed(self, net: NetOption) -> bool:
        """Whether qemu-netwrap leaves a netdev to QEMU: by its type, or by the user's keys."""
        if net.type not in ("tap", "bridge", *netdev_options.OUR_TYPES):
            return True
        return bool(self.user_keys(net))

    def user_keys(self, net: NetOption) -> tuple[str, ...]:
        """Return the keys by which the user sets up a netdev without qemu-netwrap."""
        decides = (key for key in USER_DECIDES if net.has(key))
        return (*decides, *(key for key in SCRIPTS if net.value(key) not in NO_SCRIPT))

    def nics_on(self, net: NetOption) -> tuple[GuestNic, ...]:
        """Return the guest's NICs on a netdev."""
        return self.wiring.on(net)


def interpret(
    line: CommandLine,
    files: Mapping[int, ConfigFile] | None = None,
    knows: Knows = netdev_options.nothing_more,
    *,
    leaves_typos: bool = False,
) -> NetworkOptions | None:
    """Return the network options of LINE; None if QEMU should get it unchanged.

    That is if QEMU will reject it or only print something, or if there is nothing to provision.
    FILES are its -readconfig files by the index of the option; KNOWS returns which of some unknown
    words the QEMU in use supports. Raises `UsageError` for a mistake in a command line with
    extensions, and for a mistyped network type; with LEAVES_TYPOS that is left to QEMU.
    """
    if not line.runs:
        return None
    reading = read(line, files or {})
    if not leaves_typos:
        _refuse_unknown_types(reading, knows)
    if not reading.needs_provisioning:
        return None
    wrong = tuple(faults(reading, knows))
    if not wrong:
        return reading
    _refuse_no_queues(reading)
    # QEMU would report the extensions before most other faults, but not before one in a file.
    if reading.uses_extensions and not any(option.name == "readconfig" for option, _ in wrong):
        option, what = wrong[0]
        raise UsageError(f"{option.typed}: {what}", _remedy(option, what))
    return None


def read(line: CommandLine, files: Mapping[int, ConfigFile]) -> NetworkOptions:
    """Read the network options of LINE and of its -readconfig files."""
    groups = option_groups.fill(line, files)
    nets = tuple(map(netdev_options.of_entry, groups.of(*option_groups.NETWORK)))
    return NetworkOptions(line, files, groups, nets, guest_nics.wire(line, groups, nets))


def faults(reading: NetworkOptions, knows: Knows = netdev_options.nothing_more) -> Faults:
    """Yield (option, QEMU's message) for the faults of a command line that can be foreseen."""
    yield from reading.groups.faults
    for net in reading.nets:
        wrong = netdev_options.fault(net, knows)
        if wrong:
            yield net.option, wrong
    yield from _ifnames(reading)
    yield from _twins(reading.nets)
    yield from _devices(reading.groups)
    yield from _too_many(reading.nets, one_more=reading.wiring.has_default)
    yield from reading.wiring.faults
    yield from ((n.entry.option, n.fault) for n in reading.wiring.nics if n.fault)


def _refuse_unknown_types(reading: NetworkOptions, knows: Knows) -> None:
    """Raise `UsageError` for a type that QEMU would refuse, if a known one is like it.

    QEMU's own message names neither the types that it has nor those of qemu-netwrap.
    """
    known = (*netdev_schema.TYPES, *netdev_options.OUR_TYPES, netdev_options.SRIOV, "")
    for net in reading.nets:
        if net.type not in known and not knows(frozenset({net.type})):
            meant = qemu.misspelt.type_meant(net.type)
            if meant:
                raise UsageError(
                    f"{net.option.typed}: there is no network type {net.type!r}",
                    f"did you mean -{net.form} {meant}?",
                )


def _refuse_no_queues(reading: NetworkOptions) -> None:
    """Raise `UsageError` for queues=0, at which QEMU would abort with a failed assertion."""
    for net in reading.netdevs:
        if not reading.is_user_managed(net) and numbers.parse_uint32(net.value("queues")) == 0:
            raise UsageError(
                f"{net.option.typed}: queues=0 is none: QEMU would abort",
                "leave queues= out, or give it 1 or more",
            )


def _ifnames(reading: NetworkOptions) -> Faults:
    """Yield the netdevs to provision whose ifname is invalid, or is that of another."""
    seen: set[str] = set()
    for net in reading.netdevs:
        if net.ifname and not reading.is_user_managed(net):
            pattern = names.numbered(net.ifname)
            wrong = names.ifname_fault(pattern[0] if pattern else net.ifname)
            if wrong:
                yield net.option, f"ifname {net.ifname!r} {wrong}"
            elif net.ifname in seen and not pattern:
                yield net.option, f"ifname {net.ifname} is taken by another NIC of this command"
            seen.add(net.ifname)


def _twins(nets: tuple[NetOption, ...]) -> Faults:
    """Yield the options whose id an earlier one has, whatever its group or syntax."""
    seen: set[str] = set()
    for net in nets:
        if net.has("id") and net.type != "none":
            if net.id in seen:
                yield net.option, f"Duplicate ID '{net.id}' for {net.form}"
            seen.add(net.id)


def _devices(groups: Groups) -> Faults:
    """Yield the devices without a driver, and those with the id of another."""
    seen: set[str] = set()
    for entry in groups.of("device"):
        if entry.opts.get("driver") is None:
            yield entry.option, "Parameter 'driver' is missing"
        if entry.opts.get("id") is not None:
            if entry.id in seen:
                yield entry.option, f"Duplicate device ID '{entry.id}'"
            seen.add(entry.id)


def _too_many(nets: tuple[NetOption, ...], *, one_more: bool) -> Faults:
    """Yield the NICs beyond QEMU's limit `MAX_NICS`."""
    taking = (n for n in nets if n.type != netdev_options.SRIOV)  # that becomes a -device
    nics = [n for n in taking if n.type == "nic" or (n.form == "nic" and n.is_backend)]
    return ((net.option, "too many NICs") for net in nics[MAX_NICS - one_more :])


def _remedy(net: Option, wrong: str) -> str:
    """Return the hint for a fault in a command line with extensions."""
    if wrong.startswith("Invalid parameter") and "'hostfwd'" not in wrong:
        instead = qemu.user_keys.instead(wrong.split("'")[1])
        if instead:
            return instead
        near = model.suggest.suggestion(wrong.split("'")[1], _keys(net), 0.7)
        return f"{near}it takes {', '.join(_keys(net))}"
    fits = (hint for part, hint in _REMEDIES.items() if part in wrong)
    return next(fits, "see qemu-netwrap --help")


def _keys(net: Option) -> list[str]:
    """Return the keys that an option with an extension type takes."""
    if netdev_options.SRIOV in net.typed:
        return [*qemu.sriov_options.KEYS]
    extra = sorted(netdev_options.NIC_KEYS) if net.name == "nic" else []
    return [*sorted({*netdev_options.OUR_TAP_KEYS, "hostfwd"} - {"type"}), *extra]


# Hints by a part of the message.
_REMEDIES = {
    "'type' does not accept": "qemu-netwrap --help names its network types, -netdev help QEMU's",
    "'id' is missing": "a netdev needs an id=, by which its -device names it",
    "Multiqueue": "leave out queues=, or use -nic instead of -net",
    "type for 'hostfwd'": 'in JSON it is a list: "hostfwd": [{"str": "tcp::2222-:22"}]',
    "'hostfwd'": "hostfwd= is for user, nat, and a tap on a nat network",
    "host forwarding rule": "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport, as tcp::2222-:22",
    "ifname": "give each NIC an ifname= of its own, of up to 15 letters and digits, or none",
}
