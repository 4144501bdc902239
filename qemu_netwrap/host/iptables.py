"""Rules of ours in chains of somebody else's iptables, of either kind: nf_tables or legacy.

Written by iptables itself, so that all who use it can read them; told by their comment.
"""

from __future__ import annotations

from qemu_netwrap.core.errors import HostError
from qemu_netwrap.host import files
from qemu_netwrap.host.neighbours import has_legacy_filter
from qemu_netwrap.host.nft import Nftnl
from qemu_netwrap.host.spawn import Child
from qemu_netwrap.host.which import SBIN, find_trusted

TABLE = "filter"
LEGACY = "-legacy"
_FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}


def is_there(program: str) -> bool:
    """Whether an iptables is installed."""
    return bool(find_trusted(program, SBIN))


def has_chain(program: str, chain: str) -> bool:
    """Whether the filter table has a chain, without iptables making the table for the question."""
    family = _FAMILIES[program.partition("-")[0]]
    if program.endswith(LEGACY):
        return has_legacy_filter(family) and bool(_listed(program, chain))
    asking = Nftnl()
    try:
        return asking.has_chain(family, TABLE, chain)
    finally:
        asking.close()


def is_closed(program: str, chain: str) -> bool:
    """Whether a base chain of a legacy table drops what none of its rules has let through."""
    policy, *rules = _listed(program, chain) or ["-P - ACCEPT"]
    last = rules[-1].split() if rules else []
    return policy.endswith(" DROP") or (last[2:3] == ["-j"] and last[3:4] in (["DROP"], ["REJECT"]))


def insert(program: str, rules: str, lock: str) -> Child:
    """Start adding RULES (`-I CHAIN …`, one a line), all or none; by LOCK one after the other."""
    return Child((f"{program}-restore", "--noflush", "--wait"), f"*{TABLE}\n{rules}COMMIT\n", lock)


def remove(program: str, chains: tuple[str, ...], mark: str, lock: str) -> Child | None:
    """Start removing the rules in CHAINS whose comment is MARK; None when there are none."""
    with files.Lock(lock):
        pass  # an iptables whose starter was killed may only just be adding them
    rules = [f"-D{rule.removeprefix('-A')}\n" for rule in marked(program, chains, mark)]
    return insert(program, "".join(rules), lock) if rules else None


def marked(program: str, chains: tuple[str, ...], mark: str) -> list[str]:
    """Return the rules in CHAINS whose comment is MARK. Raises `HostError`."""
    there = (chain for chain in chains if has_chain(program, chain))
    rules = (rule for chain in there for rule in _listed(program, chain))
    return [rule for rule in rules if f'--comment "{mark}"' in rule]


def _listed(program: str, chain: str) -> list[str]:
    """Return a chain's policy, or its declaration, and its rules; nothing when it is not there."""
    try:
        printed = Child((program, "--wait", "-S", chain)).wait()
    except HostError:
        if program.endswith(LEGACY):
            return []
        raise
    return [line for line in printed.splitlines() if line.startswith(("-A", "-P", "-N"))]
