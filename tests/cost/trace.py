"""What a launch asks of the kernel, from the launcher's exec to the end of the teardown: strace.

strace writes a file for each process. Who is whose child is told by what clone returned, and what
a process runs by its last execve, or else its parent's.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

_WATCHED: Final = "%process,%network,openat,getdents64,read,newfstatat,ioctl,flock"
_STRACE: Final = ("strace", "-ff", "-qq", "-y", "-s", "32", "-e", f"trace={_WATCHED}", "-e")
# A call that a signal has interrupted returns `?`, and comes again.
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_FORKS: Final = {"fork", "vfork", "clone", "clone3"}
# strace is not always sure of which family a netlink socket is: then it prints numbers.
_REQUEST: Final = re.compile(
    r"nlmsg_type=(?:NFNL_SUBSYS_NFTABLES<<8\|)?(\w+).*?nlmsg_flags=([\w|]+)"
)
_KINDS: Final = (
    *((16, "LINK"), (20, "ADDR"), (24, "ROUTE"), (28, "NEIGH"), (36, "QDISC"), (44, "TFILTER")),
)
_REQUESTS: Final = {
    f"{number:#x}": f"RTM_{verb}{what}"
    for first, what in _KINDS
    for number, verb in enumerate(("NEW", "DEL", "GET", "SET"), first)
} | {"0xa01": "NFT_MSG_GETTABLE", "0xa04": "NFT_MSG_GETCHAIN", "0xa10": "NFT_MSG_GETGEN"}
_DUMP: Final = re.compile(r"NLM_F_DUMP|0x300")
_FOLDER: Final = re.compile(r"\d+<([^>]*)>")


class Call(NamedTuple):
    program: str  # the file name of what the process runs by then
    name: str
    args: str
    result: int


class Trace:
    """The system calls of a command and all that it starts, in each process's own order."""

    def __init__(self, host: Host, folder: Path, *command: str) -> None:
        """Run COMMAND on HOST to the end of all its processes; keep the files in FOLDER."""
        folder.mkdir()
        host.run(*_STRACE, "signal=none", "-o", str(folder / "t"), "--", *command)
        self._lines = {int(p.suffix[1:]): p.read_text("utf-8") for p in folder.iterdir()}
        self.calls = [*self._of(min(self._lines), "strace")]

    def _of(self, pid: int, program: str) -> Iterator[Call]:
        """Yield the calls of a process and those of its children, when they are made."""
        for name, args, result in _CALL.findall(self._lines[pid]):
            number = int(result)
            yield Call(program, name, args, number)
            if name == "execve" and number == 0:
                program = _program(args.split('"')[1])
            elif name in _FORKS and number > 0 and "CLONE_THREAD" not in args:
                yield from self._of(number, program)

    @property
    def started(self) -> list[str]:
        """The programs that were executed, sorted, the launcher's own excepted."""
        found = [c.args.split('"')[1] for c in self.calls if c.name == "execve" and c.result == 0]
        return sorted(map(_program, found[1:]))

    @property
    def ours(self) -> list[Call]:
        """The calls of the launcher, the keeper and the waiter, and of what they fork."""
        return [c for c in self.calls if c.program in ("qemu-netwrap", "python3")]

    @property
    def forks(self) -> int:
        """How often they forked, be it for themselves or to start a program."""
        return sum(c.name in _FORKS for c in self.ours)

    @property
    def requests(self) -> Counter[str]:
        """Their netlink requests, by kind; a dump is told as such."""
        return self._requests(self.ours)

    def requests_of(self, daemon: str) -> Counter[str]:
        """Return those of a program until it leaves its starter."""
        calls = (c for c in self.calls if c.program == daemon)
        return self._requests([*takewhile(lambda c: c.name not in _FORKS, calls)])

    def _requests(self, calls: list[Call]) -> Counter[str]:
        """Return those that are among CALLS."""
        sent = (_REQUEST.search(c.args) for c in calls if c.name in ("sendto", "sendmsg"))
        kinds = ((_REQUESTS.get(m[1], m[1]), _DUMP.search(m[2])) for m in sent if m)
        return Counter(f"{kind} dump" if dump else kind for kind, dump in kinds)

    @property
    def listed(self) -> set[str]:
        """The folders that they listed, a process's number left out."""
        found = (_FOLDER.match(c.args) for c in self.ours if c.name == "getdents64")
        return {re.sub(r"/\d+(?=/|$)", "/PID", m[1]) for m in found if m}

    @property
    def counts(self) -> Counter[str]:
        """How often they made each call."""
        return Counter(c.name for c in self.ours)

    def received(self, *names: str) -> int:
        """How many bytes they got by the calls of these names."""
        return sum(max(0, c.result) for c in self.ours if c.name in names)


def _program(path: str) -> str:
    """Return a program's name; Python's without its minor version, which is the machine's."""
    return re.sub(r"^python3\.\d+$", "python3", Path(path).name)
