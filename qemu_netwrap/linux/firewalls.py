"""Firewalls that drop guests' packets: which chains do, and which program they belong to."""

from __future__ import annotations

from qemu_netwrap.linux import iptables
from qemu_netwrap.linux.netlink.nft_chains import Chain, Chains
from qemu_netwrap.linux.nft import legacy_tables
from qemu_netwrap.model.chain_verdicts import Asked, Judgement, judge
from qemu_netwrap.model.coexistence import (
    ARP,
    FORWARD,
    FRAMES,
    INET,
    INPUT,
    IP,
    IP6,
    OUTPUT,
    PREROUTING,
    ClosedChain,
    IptablesFilter,
)
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Table = tuple[str, str]  # its family and name

FIREWALLD_TABLE = ("inet", "firewalld")
DOCKER_USER = "DOCKER-USER"  # where Docker leaves room for rules of others
_PROGRAMS = {IP: "iptables", IP6: "ip6tables"}
_FAMILIES = (IP, IP6, INET, ARP, FRAMES)
# iptables' tables that can drop, and the names of base chains, in the order of the hooks.
_TABLES = ("raw", "mangle", "filter")
_BUILT_IN = {hook: hook.upper() for hook in (PREROUTING, INPUT, FORWARD, OUTPUT)}


class Wanted(Record):
    """What must pass the firewalls: the guests on a bridge, and the host's ports that they need."""

    bridge: str
    ports: tuple[int, ...]


def that_drop(
    tables: tuple[Table, ...], legacy: tuple[str, ...], wanted: Wanted
) -> tuple[tuple[IptablesFilter, ...], tuple[ClosedChain, ...]]:
    """Return the tables of iptables that drop what is WANTED, and the other chains that do.

    TABLES are those of nf_tables, LEGACY the families whose legacy tables are in use. firewalld's
    chains are skipped: it is handled through its D-Bus interface.
    """
    closed = list(_closed(tables, wanted))
    ours = [each for each in closed if _is_iptables(each[0])]
    found = [
        _filter(
            f"{name}-nft",
            table,
            {c.hook: how for c, how in ours if (c.family, c.table) == (family, table)},
        )
        for family, name in _PROGRAMS.items()
        for table in _TABLES
    ]
    for family in legacy:
        found += _legacy(f"{_PROGRAMS[family]}{iptables.LEGACY}", family, wanted)
    others = [each for each in closed if each not in ours]
    return (
        tuple(each for each in found if each is not None),
        tuple(
            ClosedChain(c.family, c.table, c.name, c.hook, selective=not how.closes)
            for c, how in others
        ),
    )


def _filter(program: str, table: str, dropping: dict[str, Judgement]) -> IptablesFilter | None:
    """Return how a table of one iptables drops at some hooks; None if it does not."""
    if not dropping:
        return None
    forward = ""
    if FORWARD in dropping:
        has_docker = table == iptables.FILTER and iptables.has_chain(program, DOCKER_USER)
        forward = DOCKER_USER if has_docker else _BUILT_IN[FORWARD]
    return IptablesFilter(
        program,
        forward,
        INPUT in dropping,
        OUTPUT in dropping,
        PREROUTING in dropping,
        tuple(hook for hook, how in dropping.items() if not how.closes),
        table,
    )


def _legacy(program: str, family: str, wanted: Wanted) -> list[IptablesFilter | None]:
    """Return the legacy tables of one iptables that drop."""
    if not iptables.is_there(program):
        return []
    found = []
    for table in legacy_tables(family):
        policies, rules = iptables.rules(program, table)
        dropping = {}
        for hook, chain in _BUILT_IN.items():
            asked = Asked(hook, wanted.bridge, wanted.ports, family)
            how = judge(lambda name, rules=rules: rules.get(name, ()), chain, asked)  # type: ignore[misc]
            if policies.get(chain) == "DROP":
                how = Judgement(drops=True, closes=True)
            if how.drops:
                dropping[hook] = how
        found.append(_filter(program, table, dropping))
    return found


def _closed(tables: tuple[Table, ...], wanted: Wanted) -> Iterator[tuple[Chain, Judgement]]:
    """Yield the base chains of TABLES that drop, and how; none without the privilege to ask."""
    if not tables:
        return
    asking = Chains()
    try:
        for family in dict.fromkeys(family for family, _ in tables):
            for chain in asking.base(family) if family in _FAMILIES else ():
                if (family, chain.table) in tables and (family, chain.table) != FIREWALLD_TABLE:
                    how = asking.judge(chain, wanted.bridge, wanted.ports)
                    if how.drops:
                        yield chain, how
    except PermissionError:
        pass
    finally:
        asking.close()


def _is_iptables(chain: Chain) -> bool:
    """Whether a chain was created by iptables, by which alone it is to be changed."""
    return (
        chain.family in _PROGRAMS
        and chain.table in _TABLES
        and chain.name == _BUILT_IN.get(chain.hook)
        and iptables.is_there(f"{_PROGRAMS[chain.family]}-nft")
    )
