"""The command lines from the world (lab.commands), before the installed QEMU: the judge.

Only words and network options are tried: disks, kernels and other architectures' machines are not
here. QEMU looks all words up before it acts on any; it reads network options before devices.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from lab import qemus
from lab.commands import commands
from lab.tool import IDLE, QEMU
from qemu_netwrap.qemu import command_line
from qemu_netwrap.qemu.netdev_options import OUR_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.commands import Command
    from lab.netns import Host

END = "-end-of-the-words"
# How QEMU refuses a word, as opposed to what it does not find on the host.
REFUSALS = (
    "invalid option", "requires an argument", "Invalid parameter", "Parameter '", "Duplicate ID",
    "is only supported with", "invalid with", "invalid syntax", "Invalid JSON", "JSON parse error",
)  # fmt: skip
UNKNOWN = "invalid option"
# What QEMU 7.2 has and a later one has not (docs/about/removed-features.rst).
REMOVED = f" -no-acpi: {UNKNOWN}"
OURS = tuple(f"value '{kind}'" for kind in OUR_TYPES)


def test_qemu_refuses_what_is_said_to_be_refused_and_nothing_else(host: Host) -> None:
    newer = qemus.installed() > 7
    wrong = []
    for command in commands():
        said = refusal(host, command)
        agreed: object
        if newer and said.endswith(REMOVED):
            agreed = True
        elif said:
            agreed = said.endswith(OURS) or (command.refused and command.refused in said)
        else:
            agreed = newer or not command.refused
        wrong += [] if agreed else [f"{command.where}: {said or 'nothing'}"]
    assert wrong == []


def test_qemu_takes_every_word_that_we_write(host: Host) -> None:
    wrong = {}
    for option, value in sorted({change for c in commands() for change in changes(c)}):
        said = refused_options(host, option, value)
        if said:
            wrong[f"{option} {value}"] = said
    assert wrong == {}


def refusal(host: Host, command: Command) -> str:
    """What QEMU says against the words or the network options; empty if nothing."""
    said = host.run(QEMU, *command.words[1:], END, check=False).stderr
    if f" {END}: {UNKNOWN}" not in said:
        return last(said)
    options = command_line.parse(command.words).named("netdev", "nic", "net")
    return refused_options(host, *(w for o in options for w in (f"-{o.name}", o.value or "")))


def refused_options(host: Host, *options: str) -> str:
    """What QEMU says against network options; empty if it takes them, or fails on the host."""
    last_word = ("-device", END)  # none of its models: QEMU ends here at the latest
    said = last(host.run(QEMU, *IDLE, *options, *last_word, check=False, timeout=60).stderr)
    return said if END not in said and any(text in said for text in REFUSALS) else ""


def last(said: str) -> str:
    return said.rstrip("\n").rpartition("\n")[2]


def changes(command: Command) -> Iterator[tuple[str, str]]:
    """Yield the network options that must be rewritten, with numbers and a MAC that QEMU reads."""
    for line in command.outcome:
        if line.lstrip("-").startswith(("netdev", "nic", "net ")):
            option, value = shlex.split(line)
            yield (
                option,
                (
                    value.replace("MAC", "52:54:00:00:00:01")
                    .replace("VHOST", "88")
                    .replace("FD", "77")
                ),
            )
