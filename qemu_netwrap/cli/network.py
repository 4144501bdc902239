"""`qemu-netwrap network`: show networks, and keep one up between runs."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_netwrap import realm
from qemu_netwrap.cli import declare, render, tables
from qemu_netwrap.cli.output import echo
from qemu_netwrap.config import file
from qemu_netwrap.errors import UsageError
from qemu_netwrap.linux import open_files
from qemu_netwrap.resources.base import Context
from qemu_netwrap.resources.explain import explain
from qemu_netwrap.runtime import inventory, network_choice, pinning, status, users_networks
from qemu_netwrap.runtime.provision import reserved_subnets
from qemu_netwrap.state import StateDir, look_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_netwrap.realm import Realm
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.runtime.launch_options import LaunchOptions

app = declare.group("network")

Name = Annotated[str, declare.argument("NAME", "network show")]


@declare.command(app, "network list")
def list_(context: typer.Context, json: declare.Json = False) -> None:
    """Show all networks: configured, built in, or up."""
    known = _inventory(context.obj)
    if json:
        echo(json_module.dumps(render.plain(known), indent=2))
    else:
        echo(tables.networks_text(known))


@declare.command(app, "network show")
def show(context: typer.Context, name: Name, json: declare.Json = False) -> None:
    """Show a network: where it is, who uses it, its leases."""
    known = inventory.find(name, _inventory(context.obj))
    up = status.network(StateDir.here(), known.bridge) if known.state == inventory.UP else None
    if json:
        data = {**render.plain(known), **(render.plain(up) if up else {})}
        echo(json_module.dumps(data, indent=2))
    else:
        echo(tables.network_text(known, up))


@declare.command(app, "network up")
def up(
    context: typer.Context,
    name: Annotated[str, declare.argument("NAME", "network up")],
) -> None:
    """Make a network if need be, and keep it up, with runs or without."""
    request: LaunchOptions = context.obj
    config = file.load(request.config)
    network = network_choice.named(name, config, name)
    if realm.is_users() and not network.traits.is_routed:
        raise UsageError(
            f"{name}: without a guest nothing keeps a plain bridge of an ordinary user's up",
            "start a guest on it; or keep up a network of mode nat or host-only",
        )
    work = _work(
        request,
        f"network up {name}",
        lambda found: users_networks.connect(found, (network,), config, request),
    )
    info = pinning.pin(network, work, reserved_subnets(config))
    if info is None:
        there = f"bridge {network.bridge} exists and is not qemu-netwrap's"
        _say(request, f"{network.name}: {there}: it needs no keeping up")
    else:
        where = f"{info.bridge} {info.address}".rstrip()
        _say(request, f"{network.name}: up ({where}) until qemu-netwrap network down {name}")


@declare.command(app, "network down")
def down(context: typer.Context, name: Name) -> None:
    """Keep a network up no longer: it goes, now or with its last run."""
    request: LaunchOptions = context.obj
    work = _work(request, f"network down {name}")
    known = inventory.find(name, _inventory(request))
    if known.state != inventory.UP:
        _say(request, f"{known.name}: it is not up")
        return
    dropped = pinning.unpin(known.bridge, work)
    before = "" if dropped.was_kept else "it was not kept up, "
    if dropped.members:
        users = ", ".join(dropped.members)
        _say(request, f"{known.name}: {before}it goes with the last run that uses it: {users}")
    else:
        _say(request, f"{known.name}: down")


def _inventory(request: LaunchOptions) -> list[inventory.NetworkSummary]:
    """Return a summary of each network: configured, built in, or up."""
    config = file.load(request.config)
    if realm.is_users():
        look_in()
    return inventory.inventory(config, request.network, Context(StateDir.here()))


def _work(
    request: LaunchOptions, command: str, make: Callable[[Realm], None] | None = None
) -> Context:
    """Return the context to change networks in; with -v it prints each step's commands.

    MAKE is for `StateDir.to_change`, by a command that may make the first network.
    """

    def show_step(resource: Resource) -> None:
        if request.verbose:
            for line in explain(resource).do:
                echo(f"+ {line}", err=True)

    open_files.require()
    return Context(
        StateDir.to_change(command, make),
        lambda line: echo(f"qemu-netwrap: {line}", err=True),
        show_step,
    )


def _say(request: LaunchOptions, line: str) -> None:
    """Print a result, unless -q was given."""
    if not request.quiet:
        echo(line)
