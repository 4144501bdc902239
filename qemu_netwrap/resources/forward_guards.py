"""Policy rules by which the host forwards only packets that the chains of a network have marked.

Forwarding is enabled per device, and nft rules restrict it to guests. A restart of
nftables.service flushes those. Policy rules stay: behind the rule that leads to the host's own
addresses, they drop packets without a mark, so without the marking chains nothing is forwarded.

A file lists which network needs which rule (`uses.Uses`), each as FAMILY PREFERENCE DOOR:

    BRIDGE ipv4 32763 iif eth0
    ...
"""

from __future__ import annotations

import _socket
import errno

from qemu_netwrap import linux
from qemu_netwrap.resources.base import ALL, Commands, Resource
from qemu_netwrap.uses import Uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_netwrap.linux.netlink.links import PolicyRule
    from qemu_netwrap.resources.base import Context, Saved

_FAMILIES = {"ipv4": _socket.AF_INET, "ipv6": _socket.AF_INET6}
# The errors of a kernel without policy routing, or without IPv6.
_UNKNOWN = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
_IIF, _TO = "iif", "to"
_WIDTH = 3  # preferences in use: of the doors' rules, of the rule for ALL, of the jump's target


class RouterGuard(Resource):
    """Policy rules by which the host forwards only what the network's chains have marked.

    Flushing nft's rules does not remove them. Networks share the rules for the same device.
    """

    kind = "Guard"

    bridge: str
    doors: str  # one a line: `ipv4 iif eth0`, `ipv4 to 10.9.0.0/24`, `ipv6 all`

    @property
    def each(self) -> tuple[str, ...]:
        """The doors as a tuple. Interface names may hold what `splitlines` takes for a line end."""
        return tuple(self.doors.split("\n"))

    def is_for_devices(self, devices: set[tuple[str, str]]) -> bool:
        """Whether every door is for packets that enter by one of DEVICES."""
        return {*self.each} <= {f"{family} {_IIF} {device}" for family, device in devices}

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the rules that do not exist yet; record that the network needs them."""
        known = _read(context)
        wanted = _wanted(self, known, context)
        left = [
            (who, rule) for who, rule in known if who != self.bridge or _door(rule) not in self.each
        ]
        dropped = [rule for who, rule in known if (who, rule) not in left and rule not in wanted]
        _write([*left, *((self.bridge, rule) for rule in wanted)], context)
        _add(wanted, context)
        _delete(dropped, [rule for _, rule in left] + wanted, context)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Delete the rules that no other network needs."""
        known = _read(context)
        mine = [
            (who, rule) for who, rule in known if who == self.bridge and _door(rule) in self.each
        ]
        left = [entry for entry in known if entry not in mine]
        _delete([rule for _, rule in mine], [rule for _, rule in left], context)
        _write(left, context)
        yield

    def insist(self, context: Context) -> None:
        """Add deleted rules again; drop those of devices that the host itself forwards for now."""
        known = _read(context)
        mine = [rule for who, rule in known if who == self.bridge and _door(rule) in self.each]
        wanted = _wanted(self, known, context)
        if sorted(mine) == sorted(wanted):
            _add(wanted, context)
            return
        with linux.files.Lock(context.state.host_lock):
            for _ in self.acquire(context):
                pass

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        rules: list[str] = []
        for family in dict.fromkeys(door.partition(" ")[0] for door in self.each):
            rules += [f"-{family[-1]} rule add pref 32765 nop protocol kernel"]
            rules += [f"-{family[-1]} rule add pref 32763 iif lo goto 32765 protocol kernel"]
            rules += [_explained(door) for door in self.each if door.startswith(family)]
        undo = (rule.replace(" rule add ", " rule del ", 1) for rule in reversed(rules))
        shared = "  # when no other network needs it"
        return Commands(
            tuple(f"ip {rule}" for rule in rules), tuple(f"ip {rule}{shared}" for rule in undo)
        )


def _explained(door: str) -> str:
    """Return the arguments of ip(8) that close a door."""
    family, _, where = door.partition(" ")
    which = "pref 32764" if where == ALL else f"pref 32763 {where}"
    return f"-{family[-1]} rule add {which} fwmark 0 blackhole protocol kernel"


def _wanted(g: RouterGuard, known: list[tuple[str, str]], context: Context) -> list[str]:
    """Return the rules that close the doors of G, except for doors that must stay open."""
    preferences: dict[str, int] = {}
    found = []
    for door in g.each:
        family, _, where = door.partition(" ")
        if _is_open(family, where, known, g, context):
            continue
        if family not in preferences:
            preferences[family] = _place(family, known, context)
        found.append(f"{family} {preferences[family]} {where}")
    return found


def _is_open(
    family: str, where: str, known: list[tuple[str, str]], g: RouterGuard, context: Context
) -> bool:
    """Whether a door must stay open: one of the host's, not of the network's own.

    Either the host has become a router since (Docker makes it one, for example), or a network of an
    earlier version forwards by the device, and its packets are not marked.
    """
    marking = {g.bridge, *(who for who, _ in known)}
    if where == ALL:  # networks have turned the global switch on: does anything else need it?
        users = Uses.read_changed(context.state.switch(ALL, "forwarding")).names
        return not {*users} <= marking
    kind, _, device = where.partition(" ")
    if kind != _IIF or device == g.bridge:
        return False
    users = Uses.read_changed(context.state.forwarding(device)).names
    return not {*users} <= marking or linux.sysctl.read(family, ALL, "forwarding") == "1"


def _delete(rules: list[str], needed: list[str], context: Context) -> None:
    """Delete those of RULES that are not NEEDED; what exempts the host's own packets goes last."""
    gone = [rule for rule in dict.fromkeys(rules) if rule not in needed]
    frames = [frame for frame in _frames(gone) if frame not in _frames(needed)]
    for one in (*map(_closed, gone), *(each for frame in frames for each in reversed(frame))):
        context.rtnl.delete_rule(one)


def _add(rules: list[str], context: Context) -> None:
    """Add rules; those that exempt packets of the host itself come first."""
    frames = (each for frame in _frames(rules) for each in frame)
    try:
        for one in (*frames, *map(_closed, rules)):
            context.rtnl.add_rule(one)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        context.say(
            "this kernel has no policy routing: where nft's rules are flushed, the host forwards"
            " for its neighbours until a run joins"
        )


def _place(family: str, known: list[tuple[str, str]], context: Context) -> int:
    """Return the rules' preference: behind the rule for the host's addresses, before all others.

    Existing rules stay where they are as long as that holds. A rule that is added later without a
    preference gets the one before the rule that follows the host's addresses, so before these. They
    do not follow the host's addresses directly, so that the kernel has room for such a rule.
    """
    try:
        local, others = context.rtnl.rule_places(_FAMILIES[family])
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        local, others = 0, linux.netlink.links.RULE_OF_MAIN
    there = [int(rule.split()[1]) for _, rule in known if rule.startswith(f"{family} ")]
    fitting = [place for place in there if local <= place and place + _WIDTH <= others]
    return min(fitting, default=max(local, others - _WIDTH, 1))


def _closed(rule: str) -> PolicyRule:
    """Return the policy rule that closes a door."""
    links = linux.netlink.links
    family, preference, where = rule.split(" ", 2)
    base = links.PolicyRule(
        _FAMILIES[family], int(preference), links.FR_ACT_BLACKHOLE, unmarked=True
    )
    kind, _, what = where.partition(" ")
    if kind == _IIF:
        return base.replace(device=what)
    if kind == _TO:
        address, _, length = what.partition("/")
        destination = _socket.inet_pton(_FAMILIES[family], address)
        return base.replace(destination=destination, length=int(length))
    if where != ALL:
        msg = f"no rule: {rule!r}"
        raise ValueError(msg)
    # With a preference of its own, or the kernel would take it for a more specific rule.
    return base.replace(preference=base.preference + 1)


def _frames(rules: Iterable[str]) -> list[tuple[PolicyRule, PolicyRule]]:
    """Return, per place in RULES, (target, jump): the two rules that exempt the host's packets."""
    places = dict.fromkeys(tuple(rule.split()[:2]) for rule in rules)
    links = linux.netlink.links
    found = []
    for family, place in places:
        number, here = _FAMILIES[family], int(place)
        end = links.PolicyRule(number, here + 2, links.FR_ACT_NOP)
        jump = links.PolicyRule(number, here, links.FR_ACT_GOTO, device="lo", goto=here + 2)
        found.append((end, jump))
    return found


def _door(rule: str) -> str:
    """Return the door of a rule: the rule without its preference."""
    family, _, where = rule.split(" ", 2)
    return f"{family} {where}"


def _read(context: Context) -> list[tuple[str, str]]:
    """Return (bridge, rule) for each network and each rule that it needs."""
    return [*Uses.read(context.state.guards).users]


def _write(known: list[tuple[str, str]], context: Context) -> None:
    """Write what `_read` returns."""
    Uses((), tuple(dict.fromkeys(known))).keep(context.state.guards)
