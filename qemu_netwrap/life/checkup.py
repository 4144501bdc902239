"""What `doctor` tells: the host as it was seen, rated. Nothing is changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qemu_netwrap.core.survey import LOADED
from qemu_netwrap.host import survey
from qemu_netwrap.life import networks, status, strays
from qemu_netwrap.life.effects import Work
from qemu_netwrap.life.state import State
from qemu_netwrap.planning.diagnosis import diagnose

if TYPE_CHECKING:
    from qemu_netwrap.planning.diagnosis import Line


def checkup() -> tuple[Line, ...]:
    """Look at the host and rate it."""
    return diagnose(survey.look(leftovers()).replace(faults=faults()))


def leftovers() -> tuple[str, ...] | None:
    """Return what dead runs have left; None for those who may not know, all but root."""
    state = State.here()
    try:
        runs = [f"run {run}" for run in state.runs() if not state.is_alive(run)]
        work = Work(state)
        unused = [
            f"network on {bridge}"
            for bridge in state.networks()
            if not networks.is_kept(bridge, work)
            and not any(state.is_alive(run) for run in networks.members(bridge, work))
        ]
    except PermissionError:
        return None
    if os.geteuid():
        return (*runs, *unused)
    has_nft = survey.driver("nf_tables") == LOADED
    return (*runs, *unused, *(str(stray) for stray in strays.find(work, has_nft=has_nft)))


def faults() -> tuple[tuple[str, str, bool], ...]:
    """Return what is wrong with networks that are up; nothing for those who may not know."""
    try:
        shown = status.all_networks(State.here())
    except PermissionError:
        return ()
    return tuple(
        (network.name, fault.removesuffix(status.REMEDY), fault.endswith(status.REMEDY))
        for network in shown
        for fault in network.faults
    )
