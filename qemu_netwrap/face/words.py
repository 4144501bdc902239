"""Our own words before QEMU's: read without typer, which costs more than a whole launch.

The options are those that `cli` declares for `launch`; a test holds the two together.
"""

from __future__ import annotations

from qemu_netwrap.core.errors import UsageError
from qemu_netwrap.core.record import Record
from qemu_netwrap.core.request import Request

COMMANDS = frozenset(
    "plan ps stop wait gc network config doctor ifup ifdown hooks shim vfio".split()
)
WITH_VALUE = {"--network": "network", "--config": "config", "--run-as": "run_as"}
FLAGS = {
    "-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--debug": "debug",
    "--yes-uplink": "yes_uplink", "--bind-group": "bind_group", "--force-uplink": "force_uplink",
}  # fmt: skip
INFORM = frozenset({"--help", "-h", "--version"})


class Typed(Record):
    """Our words, cut: options of ours, a command of ours or else QEMU's words."""

    options: tuple[str, ...]
    command: str = ""
    qemu: tuple[str, ...] = ()


def split(argv: list[str]) -> Typed:
    """Cut ARGV where QEMU's words begin: at `--`, or at the first word that is not ours."""
    at = 0
    while at < len(argv):
        word = argv[at]
        name = word.partition("=")[0]
        if word == "--":
            return Typed(tuple(argv[:at]), "", tuple(argv[at + 1 :]))
        if word in INFORM:
            return Typed(tuple(argv[:at]), word)
        if not word.startswith("-"):
            if word in COMMANDS:
                return Typed(tuple(argv[:at]), word)
            return Typed(tuple(argv[:at]), "", tuple(argv[at:]))
        if name not in WITH_VALUE and word not in FLAGS:
            from qemu_netwrap.core.suggest import suggestion

            near = suggestion(name, [*WITH_VALUE, *FLAGS, *INFORM])
            raise UsageError(f"{word}: unknown option", f"{near}see qemu-netwrap --help")
        at += 2 if word in WITH_VALUE else 1
    return Typed(tuple(argv))


def request(typed: Typed) -> Request:
    """Return the launch that was typed. Raises `UsageError`."""
    values: dict[str, str | bool] = {}
    words = iter(typed.options)
    for word in words:
        name, equals, value = word.partition("=")
        if word in FLAGS:
            values[FLAGS[word]] = True
            continue
        text = value if equals else next(words, "")
        if not text:
            raise UsageError(f"{name}: a value is missing", "see qemu-netwrap --help")
        values[WITH_VALUE[name]] = text
    return Request(typed.qemu, **values)  # type: ignore[arg-type] # the tables give each its type
