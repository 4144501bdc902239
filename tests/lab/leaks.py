"""The leak detector: everything a run may leave on a machine, compared before and after.

A snapshot is a set of subjects (a link, an address, a route, a sysctl, a file, a process…), each
with its attributes. What moves by itself, such as counters and lifetimes, is left out; the identity
of things (interface index, process id) is in, so that removed and made anew is not the same.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lab.netns import Host

_TYPES: Final = {
    stat.S_IFDIR: "folder",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}

_SECTION: Final = "\x1e"
_SHORT_TEXT: Final = 120
_MULTICAST: Final = ("01:00:5e:", "33:33:", "01:80:c2:")

# One shell for all questions; each answer follows a line with its name. Programs cost most of a
# snapshot's time: ip(8) answers several questions at once, and nobody is asked who has no say.
_IP_KINDS: Final = ("link", "address", "route", "rule4", "neighbour", "proxy")
_GATHER: Final = r"""
ask() { printf '\036%s\n' "$1"; shift; "$@" || :; }
links() {
    ip -j -d -batch - <<'END'
link show
address show
route show table all
rule show
neighbour show nud permanent
neighbour show proxy
END
}
ask ip links
ask rule6 ip -j -6 rule show
ask fdb bridge -j fdb show
ask nft nft --stateless list ruleset
legacy() { [ -z "$(cat "/proc/net/${1}_tables_names" 2>/dev/null)" ] || "${1}tables-legacy-save"; }
ask legacy4 legacy ip
ask legacy6 legacy ip6
qdiscs=$(tc -j qdisc show)
ask qdisc echo "$qdiscs"
filters() {
    for each in /sys/class/net/*; do
        for place in root ingress egress; do
            echo "filter show dev ${each##*/} $place"
        done
    done | tc -force -batch -
}
# By noqueue and noop, the kernel's own, no filter is asked.
case $(echo "$qdiscs" | grep -o '"kind":"[^"]*"' | grep -v '"no') in
    "") ;;
    *) ask filter filters ;;
esac
ask sysctl grep -rs '' /proc/sys/net/ipv4 /proc/sys/net/ipv6 /proc/sys/net/bridge
"""

# Moving by themselves, or made up by the kernel at first use.
_VOLATILE: Final = frozenset(
    (
        *("link_index", "gc_timer", "hello_timer", "tcn_timer", "topology_change_timer"),
        *("forward_delay_timer", "message_age_timer", "hold_timer", "topology_change_ack"),
        *("valid_life_time", "preferred_life_time", "tentative", "expires", "used", "updated"),
        *("packets", "bytes", "fdb_n_learned", "refcnt", "stats", "stats64", "metainfo"),
    ),
)
_VOLATILE_SYSCTLS: Final = frozenset(("/proc/sys/net/ipv4/tcp_fastopen_key",))

Facts = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Snapshot:
    """The state of a machine at one moment: attributes by subject."""

    facts: Mapping[str, Mapping[str, str]]

    def diff(self, other: Snapshot) -> list[str]:
        """Return what is different in `other`, one line each; an empty list if nothing is."""
        changed_links = {
            subject.removeprefix("link ")
            for subject in self.facts.keys() ^ other.facts.keys()
            if subject.startswith("link ")
        }
        lines = []
        for subject in sorted(self.facts.keys() | other.facts.keys()):
            if not _belongs_to(subject, changed_links):
                before, after = self.facts.get(subject), other.facts.get(subject)
                lines += _compare(subject, before, after)
        return lines


def snapshot(host: Host) -> Snapshot:
    """Return the state of `host` now."""
    answers = _sections(host.run("sh", "-c", _GATHER, cwd="/").stdout)
    answers |= dict(zip(_IP_KINDS, answers["ip"].splitlines(), strict=True))
    facts = _cheap(host)
    facts |= _links(_objects(answers["link"]))
    facts |= _addresses(_objects(answers["address"]))
    for kind in ("route", "rule4", "rule6", "neighbour", "proxy", "qdisc"):
        facts |= _counted(kind, _objects(answers[kind]))
    facts |= _counted("fdb", _static(_objects(answers["fdb"])))
    filters = answers.get("filter", "").splitlines()
    facts |= _counted("filter", ({"filter": line} for line in filters))
    facts |= _nft(answers["nft"])
    for kind in ("legacy4", "legacy6"):
        facts |= _counted(kind, _legacy(answers[kind]))
    facts |= _sysctls(answers["sysctl"])
    return Snapshot(facts)


def _cheap(host: Host) -> Facts:
    """Return what needs no program to be found out."""
    commands = host.processes()
    facts = {f"process {pid}": {"command": cmd} for pid, cmd in commands.items()}
    if host.uids:
        facts |= {f"namespace {name}": {} for name in _foreign(host.pid, commands)}
    return _mounts(host) | _files(host) | facts


def _foreign(holder: int, pids: Iterable[int]) -> set[str]:
    """Return the user, network and mount namespaces that PIDS are in or hold open.

    Without those of the machine, which `holder` is in.
    """
    found: set[str] = set()
    for pid in pids:
        found |= _held(Path(f"/proc/{pid}/ns")) | _held(Path(f"/proc/{pid}/fd"))
    return found - _held(Path(f"/proc/{holder}/ns"))


def _held(folder: Path) -> set[str]:
    """Return the namespaces that the links in a folder of a process lead to, as `net:[NUMBER]`."""
    found = set()
    with contextlib.suppress(OSError):
        for each in folder.iterdir():
            with contextlib.suppress(OSError):
                found.add(str(each.readlink()))
    return {name for name in found if name.startswith(("user:[", "net:[", "mnt:["))}


def _is_same(host: Host, before: Snapshot) -> bool:
    """Whether HOST is as it was; the programs are not started while there are still processes."""
    kinds = ("mount ", "file ", "process ", "namespace ")
    cheap = {name: facts for name, facts in before.facts.items() if name.startswith(kinds)}
    return _cheap(host) == cheap and snapshot(host) == before


def wait_same(host: Host, before: Snapshot, timeout: float = 120.0) -> None:
    """Return as soon as `host` is as it was `before`; AssertionError with the differences if not.

    Some of what a run takes away is gone only some milliseconds later: the kernel removes a tap,
    a process ends.
    """
    deadline = time.monotonic() + timeout
    while not _is_same(host, before):
        if time.monotonic() > deadline:
            lines = "\n".join(before.diff(snapshot(host)))
            message = f"{host.name} is not as it was before, {timeout} s later:\n{lines}"
            raise AssertionError(message)
        time.sleep(0.01)


def _sections(text: str) -> dict[str, str]:
    """Split the answers of the shell by their names."""
    parts = (part.partition("\n") for part in text.split(_SECTION)[1:])
    return {name: answer for name, _, answer in parts}


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the objects that an iproute2 command printed; no output means none."""
    found: list[dict[str, Any]] = json.loads(text) if text.strip() else []
    return [each for each in found if each]


def _steady(value: Any) -> Any:  # noqa: ANN401  any JSON value
    """Return a JSON value without what moves by itself."""
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [_steady(each) for each in value]
    return value


def _text(value: Any) -> str:  # noqa: ANN401  any JSON value
    """Return a JSON value as text, the same for equal values."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _phrase(value: Mapping[str, Any]) -> str:
    """Return a flat JSON object as `key=value` words."""
    return " ".join(f"{key}={_text(each)}" for key, each in value.items() if each not in ([], {}))


def _counted(kind: str, objects: Iterable[Mapping[str, Any]]) -> Facts:
    """Return objects without a name of their own as subjects; equal ones are counted."""
    counts = collections.Counter(f"{kind} {_phrase(_steady(each))}" for each in objects)
    return {subject: {"count": str(count)} for subject, count in counts.items()}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested objects with dotted names."""
    for key, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(each)


def _links(links: Iterable[Mapping[str, Any]]) -> Facts:
    """Return the links by name."""
    return {f"link {each['ifname']}": dict(_flat(_steady(each))) for each in links}


def _addresses(links: Iterable[Mapping[str, Any]]) -> Facts:
    """Return the addresses by link."""
    return {
        f"address {link['ifname']} {each.get('local')}/{each.get('prefixlen')}": dict(
            _flat(_steady(each)),
        )
        for link in links
        for each in link.get("addr_info", [])
        if each
    }


def _static(entries: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Leave out what bridges learnt, and the multicast groups of the interfaces."""
    for entry in entries:
        learnt = entry.get("state") not in ("permanent", "static")
        if not learnt and not entry.get("mac", "").startswith(_MULTICAST):
            yield entry


def _nft(text: str) -> Facts:
    """Return the ruleset's lines, each after the blocks that it is in.

    Not from nft's JSON: of a table with flags, such as one that has an owner, nftables 1.0.6 prints
    memory that it has freed, now and then no JSON at all.
    """
    counts = collections.Counter(f"nft {line}" for line in _nested(text))
    return {subject: {"count": str(count)} for subject, count in counts.items()}


def _nested(text: str) -> Iterator[str]:
    """Yield the lines of what nft lists, each after the lines that open the blocks it is in."""
    blocks: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line == "}":
            blocks.pop()
        elif line and not line.startswith("#"):
            # The owner's name is looked up in /proc, and may be gone there.
            words = line.partition(" # progname ")[0] if line.startswith("table ") else line
            yield " ".join((*blocks, words))
            if words.endswith("{"):
                blocks.append(words)


def _legacy(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield rules, chains and policies of legacy iptables; an empty table is as good as none."""
    for line in text.splitlines():
        words = line.partition(" [")[0]
        if words.startswith("-") or (words.startswith(":") and not words.endswith(" ACCEPT")):
            yield {"line": words}


def _sysctls(text: str) -> Facts:
    """Return the sysctls by path; a value of several lines is put together again."""
    facts: Facts = {}
    for line in text.splitlines():
        path, _, value = line.partition(":")
        if path not in _VOLATILE_SYSCTLS:
            subject = "sysctl " + path.removeprefix("/proc/sys/")
            known = facts.get(subject)
            facts[subject] = {"value": f"{known['value']}\n{value}" if known else value}
    return facts


def _mounts(host: Host) -> Facts:
    """Return the mounts, except those that the test laid to write files of its own.

    Nor those of other people's namespaces, which go everywhere when their file is removed.
    """
    mounts = (
        {"on": row[4], "root": row[3], "options": row[5], "type": row[row.index("-") + 1]}
        for row in host.mounts()
        if row[4] not in host.private and (row[0], row[4]) not in host.foreign_mounts
    )
    return _counted("mount", mounts)


def _files(host: Host) -> Facts:
    """Return all files below the machine's own folders, all changes below the private ones."""
    facts: Facts = {}
    for folder in host.own:
        facts |= _below(Path(f"/proc/{host.pid}/root{folder}"), folder, whole=True)
    for folder, slot in host.private.items():
        upper = Path(f"/proc/{host.pid}/cwd/{slot}/upper")
        facts |= _below(upper, folder)
    for path, text in host.written.items():
        facts |= _own_file(host, path, text, facts)
    parents = {str(parent) for path in host.written for parent in Path(path).parents}
    return {f"file {path}": each for path, each in facts.items() if path not in parents}


def _below(top: Path, folder: str, *, whole: bool = False) -> Facts:
    """Return the files below `top` by the path that they have below `folder` in the machine.

    `top` holds all of the folder if it is `whole`, else only what is different there.
    """
    facts: Facts = {}
    for where, folders, files in os.walk(top):
        for name in (*folders, *files):
            real = Path(where, name)
            path = f"{folder}/{real.relative_to(top)}"
            # An overlay copies a folder up as soon as something in it is written.
            if whole or not (real.is_dir() and Path(path).is_dir()):
                facts |= {path: _file(real)}
    return facts


def _own_file(host: Host, path: str, text: str, facts: Facts) -> Facts:
    """Take a file that the test wrote out of `facts`; return what others made of it."""
    found = facts.pop(path, None)
    if found is None:
        return {path: {"state": "gone, though the test wrote it"}}
    if found["content"] != _content(text.encode()):
        return {path: {**found, "state": f"changed since the test wrote it on {host.name}"}}
    return {}


def _file(path: Path) -> dict[str, str]:
    """Return type, mode, owner and content of a file; empty if it is gone already."""
    try:
        status = path.lstat()
        kind = _TYPES.get(stat.S_IFMT(status.st_mode), "?")
        content = str(path.readlink()) if kind == "symlink" else ""
        if kind == "file":
            content = _content(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        return {"error": str(error.strerror)}
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    return {"type": kind, "mode": mode, "owner": str(status.st_uid), "content": content}


def _content(data: bytes) -> str:
    """Return short text as it is, anything else as its size and hash."""
    if len(data) <= _SHORT_TEXT and data.isascii():
        return data.decode()
    return f"{len(data)} bytes, sha1 {hashlib.sha1(data, usedforsecurity=False).hexdigest()}"


def _belongs_to(subject: str, links: set[str]) -> bool:
    """Tell whether a subject is only a sysctl of one of these links, and so no news."""
    kind, _, path = subject.partition(" ")
    parts = path.split("/")
    return kind == "sysctl" and {"conf", "neigh"} & set(parts) != set() and bool(links & set(parts))


def _compare(
    subject: str,
    before: Mapping[str, str] | None,
    after: Mapping[str, str] | None,
) -> list[str]:
    """Return how one subject changed, one line for each change."""
    if before is None:
        return [f"appeared: {subject}{_summary(after)}"]
    if after is None:
        return [f"gone: {subject}{_summary(before)}"]
    return [
        f"changed: {subject}: {key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _summary(attributes: Mapping[str, str] | None) -> str:
    """Return what is worth saying about a whole subject, in brackets."""
    worth = (
        *("linkinfo.info_kind", "linkinfo.info_data.type", "master", "address", "flags"),
        *("value", "type", "content", "command", "state"),
    )
    known = ((key.rpartition(".")[2], (attributes or {}).get(key)) for key in worth)
    words = [f"{key}={value!r}" for key, value in known if value]
    return f" ({', '.join(words)})" if words else ""
