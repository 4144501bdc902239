"""Queries to nf_tables: base chains of other programs, and qemu-netwrap's rules in them.

Encoded by hand: nft(8) would take some 3 ms for the first. Message layouts are those of
linux/netfilter/nf_tables.h: numbers inside attributes are big-endian.
"""

from __future__ import annotations

from qemu_netwrap.linux.netlink import NLM_F_DUMP, attribute, attributes, nft_rules
from qemu_netwrap.linux.netlink.nft_rules import big_endian, within
from qemu_netwrap.linux.nft import (
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE,
    Nftnl,
    name_in,
)
from qemu_netwrap.model.chain_verdicts import Asked, Judgement, judge
from qemu_netwrap.model.coexistence import ARP, FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.netlink.nft_rules import Element
    from qemu_netwrap.model.chain_verdicts import Rule

NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM = 12, 13
NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 4, 5, 7
NFTA_HOOK_HOOKNUM = 1
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_RULE_USERDATA = 7
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS = 1, 2, 3
NFTA_DATA_VALUE = 1
NFT_SET_ELEM_INTERVAL_END = 1
NF_DROP = 0
# NF_INET_PRE_ROUTING on; NF_BR_* are the same, NF_ARP_* are not.
_HOOKS = {0: PREROUTING, 1: INPUT, 2: FORWARD, 3: OUTPUT, 4: POSTROUTING}
_ARP_HOOKS = {0: INPUT, 1: OUTPUT}
_FILTERING = ("filter", "route")  # the types of chains other than nat


class Chain(Record):
    """A base chain."""

    family: str
    table: str
    name: str
    hook: str  # one of model.coexistence
    drops: bool  # its policy is drop


class Chains(Nftnl):
    """A netlink socket for queries about chains and their rules. Methods raise `OSError`."""

    def base(self, family: str) -> list[Chain]:
        """Return the base chains of a family that can drop packets."""
        answers = self.about(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, family, flags=NLM_F_DUMP)
        chains = (_chain(family, dict(attributes(answer, 4))) for answer in answers)
        return [chain for chain in chains if chain is not None]

    def judge(self, chain: Chain, bridge: str, ports: tuple[int, ...]) -> Judgement:
        """Return what a base chain does with packets of guests on BRIDGE to PORTS of the host."""
        if chain.drops:
            return Judgement(drops=True, closes=True)

        def elements(name: str) -> list[Element]:
            return self._elements(chain.family, chain.table, name)

        def rules(name: str) -> Iterator[Rule]:
            for rule in list(self._rules(chain.family, chain.table, name)):
                if nft_rules.MARK not in rule.get(NFTA_RULE_USERDATA, b""):
                    yield from nft_rules.read(rule.get(NFTA_RULE_EXPRESSIONS, b""), elements)

        return judge(rules, chain.name, Asked(chain.hook, bridge, ports, chain.family))

    def _elements(self, family: str, table: str, name: str) -> list[Element]:
        """Return the elements of a set: key, whether it ends an interval, verdict."""
        names = ((NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, name))
        which = b"".join(attribute(kind, text.encode() + b"\0") for kind, text in names)
        answers = self.about(NFT_MSG_GETSETELEM, NFT_MSG_NEWSETELEM, family, which, NLM_F_DUMP)
        found = []
        for answer in answers:
            listed = dict(attributes(answer, 4)).get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")
            for _, raw in attributes(listed, 0):
                element = within(raw)
                key = within(element.get(NFTA_SET_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"")
                flags = big_endian(element.get(NFTA_SET_ELEM_FLAGS, b""))
                is_end = bool(flags & NFT_SET_ELEM_INTERVAL_END)
                verdict = nft_rules.verdict_of(element.get(NFTA_SET_ELEM_DATA, b""))
                found.append((key, is_end, verdict))
        return found

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

    def names(self, family: str, table: str) -> list[str]:
        """Return the names of a table's chains."""
        answers = self.about(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, family, flags=NLM_F_DUMP)
        found = (dict(attributes(answer, 4)) for answer in answers)
        return [name_in(c[NFTA_CHAIN_NAME]) for c in found if name_in(c[NFTA_CHAIN_TABLE]) == table]

    def ours(self, family: str, table: str) -> Iterator[tuple[str, str]]:
        """Yield the chains of a table with our rules, and the bridge that these are for."""
        for chain in self.names(family, table):
            rules = [
                rule.get(NFTA_RULE_USERDATA, b"") for rule in self._rules(family, table, chain)
            ]
            marks = (data.partition(nft_rules.MARK)[2] for data in rules)
            yield from ((chain, name_in(m.partition(b"\0")[0])) for m in dict.fromkeys(marks) if m)

    def _rules(self, family: str, table: str, chain: str) -> Iterator[dict[int, bytes]]:
        """Yield the attributes of each rule of a chain; none if it does not exist."""
        names = ((NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain))
        which = b"".join(attribute(kind, name.encode() + b"\0") for kind, name in names)
        answers = self.about(NFT_MSG_GETRULE, NFT_MSG_NEWRULE, family, which, NLM_F_DUMP)
        return (dict(attributes(answer, 4)) for answer in answers)


def _chain(family: str, found: dict[int, bytes]) -> Chain | None:
    """Decode a chain; None if it is no base chain that can drop packets."""
    hook = dict(attributes(found.get(NFTA_CHAIN_HOOK, b""), 0))
    hooks = _ARP_HOOKS if family == ARP else _HOOKS
    place = hooks.get(big_endian(hook[NFTA_HOOK_HOOKNUM])) if hook else None
    if place is None or name_in(found.get(NFTA_CHAIN_TYPE, b"")) not in _FILTERING:
        return None
    drops = big_endian(found[NFTA_CHAIN_POLICY]) == NF_DROP if NFTA_CHAIN_POLICY in found else False
    names = (name_in(found[NFTA_CHAIN_TABLE]), name_in(found[NFTA_CHAIN_NAME]))
    return Chain(family, *names, place, drops)
