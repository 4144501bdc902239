"""What a command line says about the network: its netdevs, and what QEMU would say of them."""

from __future__ import annotations

from qemu_netwrap.core import netoption
from qemu_netwrap.core.errors import UsageError
from qemu_netwrap.core.record import Record
from qemu_netwrap.core.words import NETWORK
from qemu_netwrap.planning.macs import Placing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.core.netoption import NetOption
    from qemu_netwrap.core.words import CommandLine, Option
    from qemu_netwrap.planning.macs import MacPlace

USER_DECIDES = ("fd", "fds", "helper", "vhostfd", "vhostfds")
SCRIPTS = ("script", "downscript")
NO_SCRIPT = ("", "no")
MAX_NICS = 8  # MAX_NICS, QEMU's include/net/net.h: of -nic and -net nic together


class Reading(Record):
    """A command line's network options, and what QEMU would say against them."""

    line: CommandLine
    placing: Placing
    netdevs: tuple[NetOption, ...] = ()  # every -netdev, -nic and -net that makes a netdev
    faults: tuple[tuple[Option, str], ...] = ()

    @property
    def has_our_words(self) -> bool:
        """Whether some option can be understood by us alone."""
        return any(net.is_ours for net in self.netdevs)

    def is_left_alone(self, net: NetOption) -> bool:
        """Whether a netdev is none of our business: of another kind, or set up by the user."""
        if net.type not in ("tap", "bridge", *netoption.OUR_TYPES):
            return True
        return bool(self.user_keys(net)) or self.placing.is_set(net)

    def user_keys(self, net: NetOption) -> tuple[str, ...]:
        """Return the keys by which the user sets a netdev up in his own way."""
        decides = (key for key in USER_DECIDES if net.has(key))
        return (*decides, *(key for key in SCRIPTS if net.value(key) not in NO_SCRIPT))

    def places(self, net: NetOption) -> tuple[MacPlace, ...]:
        """Return the NICs on a netdev, each as the place where its MAC stands or would stand."""
        return self.placing.places(net)


def interpret(line: CommandLine) -> Reading | None:
    """Read what LINE wants of us; None when it is to reach QEMU as it is.

    That is so when QEMU will refuse it or only print something, and when nothing in it is ours.
    Raises `UsageError` for a mistake in a command line that only we understand.
    """
    if not line.may_be_ours:
        return None
    reading = read(line)
    if reading.has_our_words and reading.faults:
        option, wrong = reading.faults[0]
        raise UsageError(f"{option.typed}: {wrong}", _remedy(option, wrong))
    ours = any(net.is_ours or not reading.is_left_alone(net) for net in reading.netdevs)
    return reading if ours and not reading.faults else None


def read(line: CommandLine) -> Reading:
    """Read the network options of LINE."""
    nets: list[NetOption] = []
    faults: list[tuple[Option, str]] = []
    for option in line.named(*NETWORK):
        net = netoption.parse(option)
        if net is None:
            faults.append((option, "not a list that QEMU can read"))
        else:
            nets.append(net)
            wrong = netoption.fault(net)
            faults += [(option, wrong)] if wrong else []
    hub_nics = tuple(net for net in nets if net.form == "net" and net.type == "nic")
    netdevs = tuple(net for net in nets if net.is_backend)
    reading = Reading(line, Placing(line, hub_nics), netdevs)
    found = (*faults, *_twins(nets), *_too_many(nets), *_wrong_macs(reading), *_set(reading))
    return reading.replace(faults=found)


def _twins(nets: list[NetOption]) -> Iterator[tuple[Option, str]]:
    """Yield what has the id of another before it."""
    seen: set[str] = set()
    for net in nets:
        if net.id and net.id in seen:
            yield net.option, f"Duplicate ID '{net.id}' for {net.form}"
        seen.add(net.id)


def _too_many(nets: list[NetOption]) -> Iterator[tuple[Option, str]]:
    """Yield the NICs that QEMU has no room for."""
    nics = [n for n in nets if n.type == "nic" or (n.form == "nic" and n.is_backend)]
    return ((net.option, "too many NICs") for net in nics[MAX_NICS:])


def _wrong_macs(reading: Reading) -> Iterator[tuple[Option, str]]:
    """Yield the NICs on netdevs of ours with a MAC that is none."""
    for net in reading.netdevs:
        if not reading.is_left_alone(net):
            yield from ((p.option, p.fault) for p in reading.places(net) if p.fault)


def _set(reading: Reading) -> Iterator[tuple[Option, str]]:
    """Yield the netdevs of ours that -set would change."""
    for net in reading.netdevs:
        if net.is_ours and reading.placing.is_set(net):
            yield net.option, f"-set {net.form}.{net.id} cannot change a netdev of ours"


def _remedy(net: Option, wrong: str) -> str:
    """Return the hint for a mistake in a command line of ours."""
    if "'id' is missing" in wrong:
        return "a netdev needs an id=, by which its -device names it"
    if "'hostfwd'" in wrong:
        return "only user has hostfwd= so far; from the host, use the guest's address"
    if wrong.startswith("-set"):
        return "give the key in the netdev's own option"
    if wrong.startswith("Invalid parameter"):
        extra = sorted(netoption.NIC_KEYS) if net.name == "nic" else []
        return f"it takes {', '.join([*sorted(netoption.OUR_TAP_KEYS - {'type'}), *extra])}"
    return "see qemu-netwrap --help for the words of ours"
