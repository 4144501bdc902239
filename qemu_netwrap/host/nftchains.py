"""Base chains of somebody else's, and rules of ours in them: questions to nf_tables.

Encoded by hand: nft(8) would take some 3 ms for the first. Message layouts are those of
linux/netfilter/nf_tables.h: numbers inside attributes are big-endian.
"""

from __future__ import annotations

from qemu_netwrap.core.neighbours import FORWARD, INPUT
from qemu_netwrap.core.record import Record
from qemu_netwrap.host.netlink import NLM_F_DUMP, attribute, attributes
from qemu_netwrap.host.nft import (
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE,
    Nftnl,
    name_in,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 4, 5
NFTA_HOOK_HOOKNUM = 1
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_RULE_USERDATA = 7
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE = 2, 2, 1
NFTA_TARGET_NAME = 1
NF_DROP = 0
_HOOKS = {1: INPUT, 2: FORWARD}  # NF_INET_LOCAL_IN, NF_INET_FORWARD
# Parts of a rule that let every packet through to the next part.
_NO_CONDITION = ("counter", "log")


class Chain(Record):
    """A base chain at the input or forward hook."""

    family: str
    table: str
    name: str
    hook: str  # INPUT or FORWARD
    drops: bool  # by its policy


class Chains(Nftnl):
    """A netlink socket for questions about chains and their rules."""

    def base(self, family: str) -> list[Chain]:
        """Return the base chains of a family of IP at the input and forward hooks."""
        answers = self.about(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, family, flags=NLM_F_DUMP)
        chains = (_chain(family, dict(attributes(answer, 4))) for answer in answers)
        return [chain for chain in chains if chain is not None]

    def is_closed(self, chain: Chain) -> bool:
        """Whether a base chain drops what none of its rules has let through.

        By its policy, or by a last rule that drops or rejects without a condition.
        """
        if chain.drops:
            return True
        rules = list(self._rules(chain.family, chain.table, chain.name))
        return bool(rules) and _refuses(rules[-1].get(NFTA_RULE_EXPRESSIONS, b""))

    def marked(self, family: str, table: str, chain: str, mark: str) -> list[int]:
        """Return the handles of the rules whose comment is MARK."""
        text = mark.encode()
        # libnftnl/udata.h: kind 0 is the comment; length, text and a final zero follow.
        comment = bytes((0, len(text) + 1)) + text + b"\0"
        return [
            int.from_bytes(rule[NFTA_RULE_HANDLE], "big")
            for rule in self._rules(family, table, chain)
            if comment in rule.get(NFTA_RULE_USERDATA, b"")
        ]

    def _rules(self, family: str, table: str, chain: str) -> Iterator[dict[int, bytes]]:
        """Yield the attributes of each rule of a chain; nothing when it is not there."""
        names = ((NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain))
        which = b"".join(attribute(kind, name.encode() + b"\0") for kind, name in names)
        answers = self.about(NFT_MSG_GETRULE, NFT_MSG_NEWRULE, family, which, NLM_F_DUMP)
        return (dict(attributes(answer, 4)) for answer in answers)


def _chain(family: str, found: dict[int, bytes]) -> Chain | None:
    """Read a chain; None when it is at none of the two hooks."""
    hook = dict(attributes(found.get(NFTA_CHAIN_HOOK, b""), 0))
    place = _HOOKS.get(_number(hook[NFTA_HOOK_HOOKNUM])) if hook else None
    if place is None:
        return None
    drops = _number(found[NFTA_CHAIN_POLICY]) == NF_DROP if NFTA_CHAIN_POLICY in found else False
    names = (name_in(found[NFTA_CHAIN_TABLE]), name_in(found[NFTA_CHAIN_NAME]))
    return Chain(family, *names, place, drops)


def _refuses(expressions: bytes) -> bool:
    """Whether a rule drops or rejects every packet."""
    parts = [_within(element) for _, element in attributes(expressions, 0)]
    named = [(name_in(p[NFTA_EXPR_NAME]), _within(p.get(NFTA_EXPR_DATA, b""))) for p in parts]
    rest = [(name, data) for name, data in named if name not in _NO_CONDITION]
    if len(rest) != 1:
        return False
    name, data = rest[0]
    if name == "immediate":
        verdict = _within(_within(data.get(NFTA_IMMEDIATE_DATA, b"")).get(NFTA_DATA_VERDICT, b""))
        code = verdict.get(NFTA_VERDICT_CODE)
        return code is not None and _number(code) == NF_DROP
    if name == "target":  # of iptables
        return name_in(data.get(NFTA_TARGET_NAME, b"")) in ("DROP", "REJECT")
    return name == "reject"


def _within(data: bytes) -> dict[int, bytes]:
    """Return the attributes nested in one."""
    return dict(attributes(data, 0))


def _number(raw: bytes) -> int:
    """Read a number."""
    return int.from_bytes(raw, "big")
