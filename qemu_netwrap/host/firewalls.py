"""Firewalls that drop what they were not told to let through: where, and who writes there."""

from __future__ import annotations

from qemu_netwrap.core.neighbours import FORWARD, INPUT, IP, IP6, ClosedChain, IptablesFilter
from qemu_netwrap.host import iptables
from qemu_netwrap.host.nftchains import Chain, Chains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Table = tuple[str, str]  # its family and name

FIREWALLD_TABLE = ("inet", "firewalld")
DOCKER_USER = "DOCKER-USER"  # which Docker keeps for the rules of others
_PROGRAMS = {IP: "iptables", IP6: "ip6tables"}
_BUILT_IN = {FORWARD: "FORWARD", INPUT: "INPUT"}  # iptables' names of its base chains


def that_drop(
    tables: tuple[Table, ...], legacy: tuple[str, ...]
) -> tuple[tuple[IptablesFilter, ...], tuple[ClosedChain, ...]]:
    """Return the filter tables of iptables that drop, and other chains of nf_tables that do.

    TABLES are those of nf_tables, LEGACY the families whose legacy filter table is in use. Of
    firewalld's chains nothing is told: it has a way of its own.
    """
    closed = list(_closed(tables))
    ours = [chain for chain in closed if _is_iptables(chain)]
    found = [
        _filter(f"{name}-nft", [chain.hook for chain in ours if chain.family == family])
        for family, name in _PROGRAMS.items()
    ]
    for program in (f"{_PROGRAMS[family]}{iptables.LEGACY}" for family in legacy):
        if iptables.is_there(program):
            hooks = [h for h, chain in _BUILT_IN.items() if iptables.is_closed(program, chain)]
            found.append(_filter(program, hooks))
    return (
        tuple(each for each in found if each.forward or each.input),
        tuple(
            ClosedChain(chain.family, chain.table, chain.name, chain.hook)
            for chain in closed
            if chain not in ours and chain.table != FIREWALLD_TABLE[1]
        ),
    )


def _filter(program: str, closed: list[str]) -> IptablesFilter:
    """Return the filter table of one iptables, of which these hooks are CLOSED."""
    forward = ""
    if FORWARD in closed:
        has_docker = iptables.has_chain(program, DOCKER_USER)
        forward = DOCKER_USER if has_docker else _BUILT_IN[FORWARD]
    return IptablesFilter(program, forward, INPUT in closed)


def _closed(tables: tuple[Table, ...]) -> Iterator[Chain]:
    """Yield the closed base chains of TABLES; none to those who may not ask."""
    if not tables:
        return
    asking = Chains()
    try:
        for family in dict.fromkeys(family for family, _ in tables):
            if family in (IP, IP6, "inet"):
                for chain in asking.base(family):
                    if (family, chain.table) in tables and asking.is_closed(chain):
                        yield chain
    except PermissionError:
        pass
    finally:
        asking.close()


def _is_iptables(chain: Chain) -> bool:
    """Whether a chain is of iptables' own making, to be written to by that alone."""
    return (
        chain.family in _PROGRAMS
        and chain.table == iptables.TABLE
        and chain.name == _BUILT_IN[chain.hook]
        and iptables.is_there(f"{_PROGRAMS[chain.family]}-nft")
    )
