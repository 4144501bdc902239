"""Whether a firewall's chain drops what a network's guests need, jumps and gotos included.

A rule is a list of conditions and a verdict, whichever program has written it. Guests' packets
meet each condition never, sometimes or always. A condition that is not understood counts as
`SOMETIMES`, and a chain that may drop counts as one that does.
"""

from __future__ import annotations

from qemu_netwrap.model.coexistence import FORWARD, FRAMES, INPUT, OUTPUT, PREROUTING
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NEVER, SOMETIMES, ALWAYS = 0, 1, 2
DROP, ACCEPT, RETURN, JUMP, GOTO = "drop", "accept", "return", "jump", "goto"
# The field that a condition tests; any other is UNKNOWN.
IIF, OIF, PORTS, SOURCE, TARGET, PROTOCOL, CT = "iif", "oif", "dport", "saddr", "daddr", "l4", "ct"
UNKNOWN = ""
# How many addresses a condition matches: one, those of loopback, or more.
ONE, LOOPBACK, MANY = "one", "loopback", "many"
_PROTOCOLS = {"1", "6", "17", "58"}  # ICMP, TCP, UDP, ICMPv6
_TRACKED = {"new", "established", "related"}
_CLIENT_PORTS = ((68, 68), (546, 546), (1024, 65535))  # to which DHCP and DNS servers answer
MOST_CHAINS = 256  # limit of chains to follow; beyond it the result is `drops`


class Condition(Record):
    """One condition: a field, and values of which one must match, or none if NEGATED."""

    field: str = UNKNOWN
    values: tuple[str, ...] = ()
    negated: bool = False


class Rule(Record):
    """A rule of a firewall. The verdict is empty if packets continue with the next rule."""

    conditions: tuple[Condition, ...] = ()
    verdict: str = ""
    target: str = ""  # the chain of a JUMP or GOTO


class Asked(Record):
    """The packets in question: those of guests on BRIDGE at a hook, and the ports they need."""

    hook: str
    bridge: str
    ports: tuple[int, ...]
    family: str = ""


class Judgement(Record):
    """What a base chain does with guests' packets."""

    drops: bool = False  # it may drop some of what they need
    closes: bool = False  # it drops whatever no rule accepts


def judge(rules: Callable[[str], Iterable[Rule]], base: str, asked: Asked) -> Judgement:
    """Judge a base chain whose policy is accept. RULES returns the rules of a chain by name."""
    walk = _Walk(rules, asked)
    closes = walk.certain(base) == DROP
    return Judgement(closes or walk.drops, closes)


class _Walk:
    """One walk from a base chain through all chains that are reachable from it."""

    def __init__(self, rules: Callable[[str], Iterable[Rule]], asked: Asked) -> None:
        self.rules = rules
        self.asked = asked
        self.drops = False
        self.known: dict[str, str] = {}

    def certain(self, chain: str) -> str:
        """Return the verdict on packets that no rule singles out: DROP, ACCEPT, or "" if none."""
        if chain not in self.known:
            if len(self.known) >= MOST_CHAINS:
                self.drops = True
                return ""
            self.known[chain] = ""
            self.known[chain] = self._found(chain)
        return self.known[chain]

    def _found(self, chain: str) -> str:
        for rule in self.rules(chain):
            chance = _chance_of(rule, self.asked)
            if chance == NEVER or not rule.verdict:
                continue
            verdict = rule.verdict
            if verdict == DROP:
                self.drops = True
            elif verdict in (JUMP, GOTO):
                verdict = self.certain(rule.target) or (RETURN if verdict == GOTO else "")
            if chance == ALWAYS and verdict:
                return "" if verdict == RETURN else verdict
        return ""


def _chance_of(rule: Rule, asked: Asked) -> int:
    """Return how often guests' packets meet all conditions: NEVER, SOMETIMES or ALWAYS."""
    chances = []
    for condition in rule.conditions:
        chance = _CHANCES.get(condition.field, _unknown)(condition.values, asked)
        chances.append(ALWAYS - chance if condition.negated else chance)
    return min(chances, default=ALWAYS)


def _unknown(_values: tuple[str, ...], _asked: Asked) -> int:
    return SOMETIMES


def _comes_in_by(values: tuple[str, ...], asked: Asked) -> int:
    """Forwarded answers may arrive by any way out: SOMETIMES."""
    if asked.family == FRAMES or asked.hook not in (PREROUTING, INPUT, OUTPUT):
        return SOMETIMES
    is_met = asked.hook != OUTPUT and any(_names(each, asked.bridge) for each in values)
    return ALWAYS if is_met else NEVER


def _goes_out_by(values: tuple[str, ...], asked: Asked) -> int:
    if asked.family == FRAMES or asked.hook not in (PREROUTING, INPUT, OUTPUT):
        return SOMETIMES
    is_met = asked.hook == OUTPUT and any(_names(each, asked.bridge) for each in values)
    return ALWAYS if is_met else NEVER


def _names(pattern: str, device: str) -> bool:
    """Whether PATTERN, which may end with a *, names a device."""
    return device.startswith(pattern[:-1]) if pattern.endswith("*") else device == pattern


def _has_port(values: tuple[str, ...], asked: Asked) -> int:
    """Which ports of forwarded packets are closed is up to the firewall's owner: NEVER."""
    if asked.hook == FORWARD:
        return NEVER
    wanted = tuple((port, port) for port in asked.ports)
    wanted = wanted if asked.hook in (INPUT, PREROUTING) else _CLIENT_PORTS
    spans = [tuple(map(int, each.split("-"))) for each in values]
    is_met = any(low <= high_ and low_ <= high for low, high in spans for low_, high_ in wanted)
    return SOMETIMES if is_met else NEVER


def _comes_from(values: tuple[str, ...], _asked: Asked) -> int:
    """A rule against a single address does not concern the network."""
    return SOMETIMES if MANY in values else NEVER


def _goes_to(values: tuple[str, ...], asked: Asked) -> int:
    """Which targets of forwarded packets are closed is up to the firewall's owner: NEVER."""
    if asked.hook == FORWARD:
        return NEVER
    is_met = MANY in values or (ONE in values and asked.hook == OUTPUT)
    return SOMETIMES if is_met else NEVER


def _is_protocol(values: tuple[str, ...], _asked: Asked) -> int:
    return SOMETIMES if _PROTOCOLS & set(values) else NEVER


def _has_state(values: tuple[str, ...], _asked: Asked) -> int:
    if set(values) >= _TRACKED:
        return ALWAYS
    return SOMETIMES if _TRACKED & set(values) else NEVER


_CHANCES: dict[str, Callable[[tuple[str, ...], Asked], int]] = {
    IIF: _comes_in_by,
    OIF: _goes_out_by,
    PORTS: _has_port,
    SOURCE: _comes_from,
    TARGET: _goes_to,
    PROTOCOL: _is_protocol,
    CT: _has_state,
}
