"""A launch's plan as it would be carried out now: the host is only read, not changed."""

from __future__ import annotations

import os

from qemu_netwrap import passthrough, realm
from qemu_netwrap.config import file
from qemu_netwrap.linux import programs
from qemu_netwrap.model.names import guest_names
from qemu_netwrap.model.run import TapDescriptors, TapRequest
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import Context, Resource
from qemu_netwrap.resources.explain import Step, explain
from qemu_netwrap.runtime import (
    host_ports,
    launcher,
    mtu,
    preflight,
    provision,
    run_steps,
    under_sudo,
    users_networks,
)
from qemu_netwrap.runtime.membership import (
    Membership,
    NetworkInfo,
    check_joinable,
    gateways,
    read_info,
    resources_of,
)
from qemu_netwrap.state import StateDir, look_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.network import Config, Network
    from qemu_netwrap.runtime.launch_options import LaunchOptions
    from qemu_netwrap.runtime.plan import Plan

RUN = "RUN"  # stands for the run's name, which is QEMU's process id

MADE = "made"
JOINED = "joined"
FOREIGN = "used as it is"


class NetworkPlan(Record):
    """A network of the launch, and whether it would be made, joined, or is not ours."""

    network: Network
    action: str
    address: str = ""  # the gateway's, with its prefix length
    address6: str = ""  # the same for IPv6; empty without


class Preview(Record):
    """What a launch would do: its networks, NICs, steps in order, and QEMU's new command line."""

    argv: tuple[str, ...]
    networks: tuple[NetworkPlan, ...] = ()
    nics: tuple[TapRequest, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def preview(request: LaunchOptions) -> Preview:
    """Plan a launch. Raises the `NetwrapError` that the launch would, if it can be foreseen."""
    program = launcher.find_program(request.words[0])
    request = under_sudo.settled(request)
    # Only root can run QEMU as USER to list its options; any other user runs it as that user.
    user = launcher.user_of(request) if os.geteuid() == 0 else None
    # For a mere preview root does not run a program that another user may have written.
    asks = os.geteuid() != 0 or user is not None or programs.is_trusted(program)
    line, reading = launcher.read_line(request.words, program, user, asks=asks)
    if reading is None:
        return Preview(line.words, notes=under_sudo.settled_notes(request))
    config = request.loaded or file.load(request.config)
    plan = provision.make_plan(request, reading, config, RUN)
    users = _as_user(plan, config) if realm.is_users() and plan.nics else ()
    networks, resources, grants = [], [], {}
    for network in plan.wanted.networks:
        shown, made = _network(network, provision.reserved_subnets(config))
        networks.append(shown)
        resources += [Membership(network.bridge, RUN), *made]
    infos = {
        each.network.bridge: NetworkInfo(
            each.network.name, each.network.mode, each.network.bridge, each.address, each.address6
        )
        for each in networks
    }
    names = {b: guest_names(plan.guest if info.address else "") for b, info in infos.items()}
    work = Context(StateDir.here())
    nics = tuple(planned.nic for planned in plan.nics)
    preflight.check(nics, work.state)
    preflight.check_settings(resources)
    for nic in nics:
        grants[nic.tap] = _placeholder(nic)
        steps = run_steps.NicSteps(
            nic, infos[nic.network.bridge], names[nic.network.bridge], _Foreseen(RUN, work)
        )
        resources += [resource for step in steps for resource in step]
    rewritten = plan.rewritten(grants)
    passing = provision.passing_of(request, reading, config, plan)
    if passing is not None:
        foreseen, chosen = passthrough.assign.foresee(passing, RUN)
        resources += foreseen
        rewritten = passthrough.devices.replace_options(rewritten, passing.wanted, chosen)
    return Preview(
        rewritten.words({at: f"<copy of {plan.files[at].path}>" for at in rewritten.files}),
        tuple(networks),
        tuple(nic.replace(macs=grants[nic.tap].macs, mac_key=()) for nic in nics),
        tuple(explain(resource) for resource in resources),
        (*under_sudo.settled_notes(request), *plan.details, *mtu.notes(plan), *users),
    )


def _as_user(plan: Plan, config: Config) -> tuple[str, ...]:
    """Enter an ordinary user's realm, after a look at what is outside; return notes about it.

    Raises the `HostError` that the launch would.
    """
    users_networks.check(plan.wanted)
    host_ports.check((planned.nic for planned in plan.nics), StateDir.here())
    way_out = users_networks.way_out_note(plan.wanted, config)
    look_in()
    return ("in a network namespace of this user's own: no root is needed", *way_out)


def _network(
    network: Network, reserved: tuple[Subnet, ...]
) -> tuple[NetworkPlan, tuple[Resource, ...]]:
    """Return what a launch would do with a network, and the resources that making it needs."""
    work = Context(StateDir.here())
    info = read_info(work, network.bridge)
    if info is not None:
        check_joinable(network, work)
        return NetworkPlan(network, JOINED, info.address, info.address6), ()
    made = resources_of(network, work, reserved)
    shown = MADE if any(resource.bridge_made for resource in made) else FOREIGN
    return NetworkPlan(network, shown, *gateways(made)), made


class _Foreseen(run_steps.Choice):
    """What a launch would choose, without a lock and without making anything."""

    def attached(self, nic: TapRequest) -> Resource | None:
        """Return none: the tap would be made."""
        del nic
        return None

    def mac(self, nic: TapRequest, number: int) -> str:
        """Return the user's MAC, or the first one that a launch would try."""
        return _placeholder(nic).macs[number]

    def steps(self, steps: Iterator[run_steps.Step], bridge: str) -> Iterator[run_steps.Step]:
        """Yield the steps as they are."""
        del bridge
        return steps


def _placeholder(nic: TapRequest) -> TapDescriptors:
    """Return placeholders for a NIC's descriptors, whose numbers only a launch knows."""
    queues = range(nic.queues)
    taps = tuple(f"<{nic.tap}>" if nic.queues == 1 else f"<{nic.tap}.{q}>" for q in queues)
    vhosts = tuple(f"<vhost-{nic.tap}.{q}>" for q in queues) if nic.vhost else ()
    macs = tuple(nic.macs[n] or nic.own_mac(n) for n in range(len(nic.macs)))
    return TapDescriptors(taps, vhosts, macs)
