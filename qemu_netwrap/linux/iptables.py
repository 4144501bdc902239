"""Rules of qemu-netwrap's in chains of iptables, of either kind: nf_tables or legacy.

They are written by iptables itself, so that it can list them, and recognised by their comment.
"""

from __future__ import annotations

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files
from qemu_netwrap.linux.child import Child
from qemu_netwrap.linux.nft import Nftnl, legacy_tables
from qemu_netwrap.linux.programs import SBIN, find_trusted
from qemu_netwrap.model import chain_verdicts
from qemu_netwrap.model.chain_verdicts import Condition, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILTER = "filter"
MARK = '--comment "qemu-netwrap: '
LEGACY = "-legacy"
_FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}


def is_there(program: str) -> bool:
    """Whether an iptables, such as `ip6tables-nft`, is installed."""
    return bool(find_trusted(program, SBIN))


def has_chain(program: str, chain: str, table: str = FILTER) -> bool:
    """Whether a table has a chain. Asking does not make iptables create the table."""
    family = _FAMILIES[program.partition("-")[0]]
    if program.endswith(LEGACY):
        return table in legacy_tables(family) and bool(_listed(program, chain, table))
    asking = Nftnl()
    try:
        return asking.has_chain(family, table, chain)
    finally:
        asking.close()


def rules(program: str, table: str) -> tuple[dict[str, str], dict[str, list[Rule]]]:
    """Return the policies of a table's base chains, and all of its chains' rules.

    Rules of qemu-netwrap's are left out. Raises `HostError`.
    """
    policies: dict[str, str] = {}
    found: dict[str, list[Rule]] = {}
    for line in _listed(program, "", table):
        words = _words(line)
        if words[0] == "-P":
            policies[words[1]] = words[2]
        elif words[0] == "-A" and MARK not in line:
            found.setdefault(words[1], []).append(_rule(words[2:]))
    return policies, found


def ours(program: str, table: str) -> dict[str, tuple[str, ...]]:
    """Return the chains of a table with rules of qemu-netwrap's, by the bridge these are for."""
    found: dict[str, tuple[str, ...]] = {}
    for line in _listed(program, "", table):
        _, mark, rest = line.partition(MARK)
        if mark and line.startswith("-A "):
            bridge, chain = rest.partition('"')[0], line.split()[1]
            found[bridge] = tuple(dict.fromkeys((*found.get(bridge, ()), chain)))
    return found


def _rule(words: list[str]) -> Rule:
    """Read a rule as `iptables -S` prints it. Unknown matches become conditions without a kind."""
    conditions: list[Condition] = []
    verdict, target, negated = "", "", False
    rest = iter(words)
    for word in rest:
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            target = next(rest, "")
            builtin = _VERDICTS.get(target, chain_verdicts.JUMP)
            verdict = builtin if word == "-j" else chain_verdicts.GOTO
            break  # the rest are the target's options
        if word == "-m":
            if next(rest, "") not in _MATCHES:
                conditions.append(Condition())
        elif word in _OPTIONS:
            field, values = _OPTIONS[word]
            conditions.append(Condition(field, values(next(rest, "")), negated))
        elif word.startswith("-") and word not in _IGNORED:
            conditions.append(Condition())
        negated = False
    return Rule(tuple(conditions), verdict, target)


def _devices(text: str) -> tuple[str, ...]:
    return (f"{text[:-1]}*" if text.endswith("+") else text,)


def _ports(text: str) -> tuple[str, ...]:
    spans = (each.partition(":") for each in text.split(","))
    pairs = ((low or "0", (high or "65535") if colon else low) for low, colon, high in spans)
    found = tuple(f"{low}-{high}" for low, high in pairs)
    return found if all(each.replace("-", "").isdigit() for each in found) else ("0-65535",)


def _protocols(text: str) -> tuple[str, ...]:
    return (_PROTOCOLS.get(text, text),)


def _addresses(text: str) -> tuple[str, ...]:
    address, _, length = text.partition("/")
    if address.startswith("127."):
        return (chain_verdicts.LOOPBACK,)
    first = address.partition(".")[0]
    is_unicast = not first.isdigit() or 0 < int(first) < _MULTICAST
    is_one = length in _WHOLE and is_unicast and not address.lower().startswith("ff")
    return (chain_verdicts.ONE if is_one and address != "::" else chain_verdicts.MANY,)


def _states(text: str) -> tuple[str, ...]:
    return tuple(text.lower().split(","))


_MULTICAST = 224
_WHOLE = ("", "32", "128")
_PROTOCOLS = {"icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58", "ipv6-icmp": "58"}
_VERDICTS = {
    "ACCEPT": chain_verdicts.ACCEPT, "DROP": chain_verdicts.DROP, "REJECT": chain_verdicts.DROP,
    "RETURN": chain_verdicts.RETURN,
    "QUEUE": chain_verdicts.ACCEPT,
    "NFQUEUE": chain_verdicts.ACCEPT,
}  # fmt: skip
_MATCHES = frozenset(("comment", "tcp", "udp", "conntrack", "state", "multiport"))
_IGNORED = frozenset(("--comment",))
_OPTIONS: dict[str, tuple[str, Callable[[str], tuple[str, ...]]]] = {
    "-i": (chain_verdicts.IIF, _devices),
    "-o": (chain_verdicts.OIF, _devices),
    "-p": (chain_verdicts.PROTOCOL, _protocols),
    "-s": (chain_verdicts.SOURCE, _addresses),
    "-d": (chain_verdicts.TARGET, _addresses),
    "--dport": (chain_verdicts.PORTS, _ports),
    "--dports": (chain_verdicts.PORTS, _ports),
    "--ctstate": (chain_verdicts.CT, _states),
    "--state": (chain_verdicts.CT, _states),
}


def _words(line: str) -> list[str]:
    """Return a line's words; text in quotes (a comment, a prefix) is one word."""
    found: list[str] = []
    for number, part in enumerate(line.replace('\\"', "").split('"')):
        found += [part] if number % 2 else part.split()
    return found


def insert(program: str, text: str, lock: str, table: str = FILTER) -> Child:
    """Start adding rules (`-I CHAIN …`, one on a line), all or none; LOCK is held meanwhile."""
    return Child((f"{program}-restore", "--noflush", "--wait"), f"*{table}\n{text}COMMIT\n", lock)


def remove(
    program: str, chains: tuple[str, ...], mark: str, lock: str, table: str = FILTER
) -> Child | None:
    """Start removing the rules in CHAINS whose comment is MARK; None if there are none."""
    with files.Lock(lock):
        pass  # an iptables whose starter was killed may still be adding them
    found = [f"-D{rule.removeprefix('-A')}\n" for rule in marked(program, chains, mark, table)]
    return insert(program, "".join(found), lock, table) if found else None


def marked(program: str, chains: tuple[str, ...], mark: str, table: str = FILTER) -> list[str]:
    """Return the rules in CHAINS whose comment is MARK. Raises `HostError`."""
    there = (chain for chain in chains if has_chain(program, chain, table))
    found = (rule for chain in there for rule in _listed(program, chain, table))
    return [rule for rule in found if f'--comment "{mark}"' in rule]


def _listed(program: str, chain: str, table: str) -> list[str]:
    """Return a chain's policy or declaration, and its rules; nothing if it does not exist.

    Without a CHAIN, the whole table. Raises `HostError`.
    """
    try:
        which = (chain,) if chain else ()
        printed = Child((program, "--wait", "-t", table, "-S", *which)).wait()
    except HostError:
        if program.endswith(LEGACY):
            return []
        raise
    return [line for line in printed.splitlines() if line.startswith(("-A", "-P", "-N"))]
