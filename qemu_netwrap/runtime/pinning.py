"""Networks kept up between runs: `network up` adds a member that is no run.

`pin` and `unpin` use a run of this process's own, which is a member meanwhile: if the process is
killed, at whatever step, that is a dead run like any other, which the next run or gc releases.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from qemu_netwrap.linux import proc
from qemu_netwrap.record import Record
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.runtime import membership, runs
from qemu_netwrap.runtime.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Context
    from qemu_netwrap.runtime.membership import NetworkInfo


class Dropped(Record):
    """What became of a network that is no longer kept."""

    was_kept: bool
    members: tuple[str, ...]  # the living runs that still use it


def pin(network: Network, work: Context, reserved: tuple[Subnet, ...]) -> NetworkInfo | None:
    """Create NETWORK if necessary and keep it up; return None if its bridge is not ours.

    RESERVED are subnets that must not be chosen. Raises `NetwrapError`; nothing is left then.
    """
    with _visit(network.bridge, work) as run:
        membership.join(network, run, work, reserved)
        if network.uplink:
            membership.follow_uplinks(work)
        info = membership.read_info(work, network.bridge)
        if info is not None:
            membership.keep(network.bridge, work)
    return info


def unpin(bridge: str, work: Context) -> Dropped:
    """Stop keeping the network on BRIDGE: it is taken down now, or with its last run.

    Raises the `NetwrapError` of what could not be released.
    """
    with _visit(bridge, work) as run:
        was_kept = membership.keep_no_longer(bridge, run, work)
    alive = filter(work.state.is_alive, membership.members(bridge, work))
    return Dropped(was_kept, tuple(alive))


@contextlib.contextmanager
def _visit(bridge: str, work: Context) -> Iterator[str]:
    """Yield a run that is to be a member of the network on BRIDGE, and release it at the end."""
    run, lock = runs.claim_name(work.state, str(os.getpid()))
    runs.write_owner(work.state, run, proc.of(os.getpid()))
    try:
        Journal(f"{work.state.run(run)}/journal").intend(Membership(bridge, run))
        yield run
    except BaseException:
        for error in runs.release(work.state, run, work.say):
            work.say(error.message)
        raise
    else:
        for error in runs.release(work.state, run, work.say):
            raise error
    finally:
        os.close(lock)
