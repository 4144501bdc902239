"""What a command line says about the network: its netdevs, and the NICs that sit on them."""

from __future__ import annotations

from qemu_netwrap.core import netoption
from qemu_netwrap.core.errors import UsageError
from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.jsonopts import JsonObject
    from qemu_netwrap.core.netoption import NetOption
    from qemu_netwrap.core.optlist import OptList
    from qemu_netwrap.core.words import CommandLine, Option

USER_DECIDES = ("fd", "fds", "helper", "vhostfd", "vhostfds")
SCRIPTS = ("script", "downscript")
NO_SCRIPT = ("", "no")


class Reading(Record):
    """A command line's network options, and what QEMU would say against them."""

    line: CommandLine
    netdevs: tuple[NetOption, ...] = ()  # every -netdev, -nic and -net that makes a netdev
    hub_nics: tuple[NetOption, ...] = ()  # every -net nic
    faults: tuple[tuple[Option, str], ...] = ()

    @property
    def has_our_words(self) -> bool:
        """Whether some option can be understood by us alone."""
        return any(net.is_ours for net in self.netdevs)


class MacPlace(Record):
    """Where a NIC's MAC is, or would be written: an option, the key, and the user's value."""

    option: Option
    opts: OptList | JsonObject
    key: str
    mac: str


def interpret(line: CommandLine) -> Reading | None:
    """Read what LINE wants of us; None when it is to reach QEMU as it is.

    That is so when QEMU will refuse it or only print something, and when nothing in it is ours.
    Raises `UsageError` for a mistake in a command line that only we understand.
    """
    if line.refused or line.prints_and_exits:
        return None
    reading = read(line)
    if reading.has_our_words and reading.faults:
        option, wrong = reading.faults[0]
        raise UsageError(f"{option.typed}: {wrong}", _remedy(option, wrong))
    ours = any(net.is_ours or not is_left_alone(net) for net in reading.netdevs)
    return reading if ours and not reading.faults else None


def read(line: CommandLine) -> Reading:
    """Read the network options of LINE."""
    netdevs, hub_nics = [], []
    faults: list[tuple[Option, str]] = []
    ids: set[str] = set()
    for option in line.named("netdev", "nic", "net"):
        net = netoption.parse(option)
        if net is None:
            faults.append((option, "not a list that QEMU can read"))
            continue
        wrong = netoption.fault(net)
        if not wrong and net.form == "netdev" and net.id in ids:
            wrong = f"Duplicate ID '{net.id}' for netdev"
        if wrong:
            faults.append((option, wrong))
        ids.add(net.id)
        if net.is_backend:
            netdevs.append(net)
        elif net.type == "nic":
            hub_nics.append(net)
    return Reading(line, tuple(netdevs), tuple(hub_nics), tuple(faults))


def is_left_alone(net: NetOption) -> bool:
    """Whether a netdev is none of our business: of another kind, or set up by the user."""
    if net.type not in ("tap", "bridge", *netoption.OUR_TYPES):
        return True
    return any(net.value(key) for key in USER_DECIDES) or any(
        net.value(key) not in NO_SCRIPT for key in SCRIPTS
    )


def mac_places(reading: Reading, net: NetOption) -> tuple[MacPlace, ...]:
    """Return the NICs on a netdev, each as the place where its MAC stands or would stand."""
    if net.form == "nic":
        return (_place(net.option, net.opts, "mac"),)
    if net.form == "net":
        hub = [nic for nic in reading.hub_nics if not nic.value("netdev")]
        return tuple(_place(nic.option, nic.opts, "macaddr") for nic in hub)
    hub = [nic for nic in reading.hub_nics if nic.value("netdev") == net.id]
    return (*(_place(n.option, n.opts, "macaddr") for n in hub), *_devices(reading.line, net.id))


def _remedy(net: Option, wrong: str) -> str:
    """Return the hint for a mistake in an option of ours."""
    if "'id' is missing" in wrong:
        return "a netdev needs an id=, by which its -device names it"
    if "'hostfwd'" in wrong:
        return "only user has hostfwd= so far; from the host, use the guest's address"
    if wrong.startswith("Invalid parameter"):
        extra = sorted(netoption.NIC_KEYS) if net.name == "nic" else []
        return f"it takes {', '.join([*sorted(netoption.OUR_TAP_KEYS - {'type'}), *extra])}"
    return "see qemu-netwrap --help for the words of ours"


def _devices(line: CommandLine, netdev: str) -> tuple[MacPlace, ...]:
    """Return the -device options that sit on a netdev."""
    found = []
    for option in line.named("device"):
        text = option.value or ""
        opts = netoption.read_list(text, "driver") if netdev in text else None
        if opts is not None and opts.get("netdev") == netdev:
            found.append(_place(option, opts, "mac"))
    return tuple(found)


def _place(option: Option, opts: OptList | JsonObject, key: str) -> MacPlace:
    """Return the place of a MAC in OPTS; QEMU takes an all-zero MAC for none."""
    mac = opts.get(key) or ""
    return MacPlace(option, opts, key, mac if mac.strip("0:") else "")
