"""Where the MACs of the NICs on a netdev stand in the command line, or would stand."""

from __future__ import annotations

from qemu_netwrap.core import mac, netoption
from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.jsonopts import JsonObject
    from qemu_netwrap.core.netoption import NetOption
    from qemu_netwrap.core.optlist import OptList
    from qemu_netwrap.core.words import CommandLine, Option


class MacPlace(Record):
    """One NIC: its option, the key of its MAC there, the user's MAC, and what is wrong with it."""

    option: Option
    opts: OptList | JsonObject
    key: str
    mac: str = ""  # empty: none, or all zero, which is QEMU's word for a default
    fault: str = ""


class Placing(Record):
    """What finding the NICs on a netdev takes."""

    line: CommandLine
    hub_nics: tuple[NetOption, ...] = ()  # every -net nic

    def places(self, net: NetOption) -> tuple[MacPlace, ...]:
        """Return the NICs on a netdev."""
        if net.form == "nic":
            return (_place(net.option, net.opts, "mac"),)
        nics = [nic for nic in self.hub_nics if nic.value("netdev") == _peer(net)]
        places = tuple(_place(nic.option, nic.opts, "macaddr") for nic in nics)
        return places if net.form == "net" else (*places, *self._devices(net.id))

    def is_set(self, net: NetOption) -> bool:
        """Whether -set changes a netdev (`-set netdev.ID.KEY=VALUE`)."""
        return bool(net.id) and bool(self._settings(net.form, net.id))

    def _settings(self, group: str, name: str) -> dict[str, str]:
        """Return what -set gives an option: key and value."""
        found = {}
        for option in self.line.named("set"):
            key, _, value = (option.value or "").partition("=")
            path = key.split(".")
            if path[0] == group and ".".join(path[1:-1]) == name:
                found[path[-1]] = value
        return found

    def _devices(self, netdev: str) -> tuple[MacPlace, ...]:
        """Return the -device options that sit on a netdev."""
        found = []
        for option in self.line.named("device"):
            text = option.value or ""
            opts = netoption.read_list(text, "driver") if netdev in text else None
            if opts is not None and opts.get("netdev") == netdev:
                given = self._settings("device", opts.get("id") or "").get("mac")
                found.append(_place(option, opts, "mac", given, strict=True))
        return tuple(found)


def _peer(net: NetOption) -> str:
    """Return what a -net nic says in netdev= to sit on NET: nothing for the hub."""
    return "" if net.form == "net" else net.id


def _place(
    option: Option,
    opts: OptList | JsonObject,
    key: str,
    given: str | None = None,
    *,
    strict: bool = False,
) -> MacPlace:
    """Return the place of a MAC in OPTS; GIVEN is what counts instead, if it is not None."""
    typed = opts.get(key) if given is None else given
    if typed is None:
        return MacPlace(option, opts, key)
    try:
        return MacPlace(option, opts, key, mac.parse(typed, strict=strict))
    except ValueError as error:
        return MacPlace(option, opts, key, fault=str(error))
