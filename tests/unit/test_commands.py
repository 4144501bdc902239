"""Command lines from the world, planned: see lab.commands for their form."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.commands import Command, commands
from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.model.network import Config
from qemu_netwrap.model.run import TapDescriptors
from qemu_netwrap.qemu import command_line, known_options
from unit.test_golden import Host, planned_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.run import TapRequest
    from qemu_netwrap.runtime.plan import Plan

COMMANDS = list(commands())
DATA = Path(__file__).parent / "data"
# The options of QEMU 7.2, Debian 12's.
DEBIANS = known_options.parse_help((DATA / "qemu-7.2-help.txt").read_text())


@pytest.mark.parametrize("command", COMMANDS, ids=[c.where for c in COMMANDS])
def test_command(command: Command) -> None:
    assert outcome_of(command) == command.outcome


def test_what_qemu_refuses_reaches_it_unchanged() -> None:
    assert [c.where for c in COMMANDS if c.refused and c.outcome != ("unchanged",)] == []


def test_there_are_many_of_each_kind() -> None:
    assert len(COMMANDS) >= 250
    assert len({c.words for c in COMMANDS if c.outcome == ("unchanged",)}) >= 120
    assert len({c.words for c in COMMANDS if c.outcome[-1:] and " on " in c.outcome[-1]}) >= 60
    assert len([c for c in COMMANDS if c.refused]) >= 20


def outcome_of(command: Command) -> tuple[str, ...]:
    host: Host = {"existing": list(command.there), "host_bridge": command.host_bridge}
    try:
        plan = planned_for(DATA, command_line.parse_for(command.words, *DEBIANS), Config(), host)
    except NetwrapError as error:
        return (f"error: {error.message}",)
    return ("unchanged",) if plan is None else (*changes(plan), *taps(plan))


def changes(plan: Plan) -> Iterator[str]:
    """Yield each option with an argument that is not what was typed."""
    rewritten = plan.rewritten({p.nic.tap: grant(p.nic) for p in plan.nics})
    old, new = plan.line.words, rewritten.words({})
    for at, (before, after) in enumerate(zip(old, new, strict=True)):
        if after != before:
            yield f"{new[at - 1]} {shlex.quote(after)}"


def taps(plan: Plan) -> Iterator[str]:
    for nic in (planned.nic for planned in plan.nics):
        rest = {
            f"{nic.queues} queues": nic.queues > 1,
            "vhost": nic.vhost,
            "no vnet_hdr": not nic.vnet_hdr,
        }
        yield ", ".join(
            [f"{nic.tap} on {nic.network.name}", *(text for text in rest if rest[text])]
        )


def grant(nic: TapRequest) -> TapDescriptors:
    vhost = ("VHOST",) * nic.queues if nic.vhost else ()
    return TapDescriptors(("FD",) * nic.queues, vhost, tuple(mac or "MAC" for mac in nic.macs))
