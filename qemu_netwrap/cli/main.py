"""The command line beyond the plain launch, by typer."""

from __future__ import annotations

import json as json_module
import os
import signal
import sys
from typing import Annotated, Any

import typer

import qemu_netwrap
from qemu_netwrap.cli import (
    config as config_commands,
)
from qemu_netwrap.cli import (
    doctor,
    hooks,
    options,
    render,
    shim,
    vfio,
)
from qemu_netwrap.cli import (
    network as network_commands,
)
from qemu_netwrap.cli.output import echo
from qemu_netwrap.errors import NetwrapError, UsageError
from qemu_netwrap.linux import open_files
from qemu_netwrap.runtime import ifup_hook, status, under_sudo
from qemu_netwrap.runtime.launch_options import Request
from qemu_netwrap.runtime.preview import preview
from qemu_netwrap.state import State

app = typer.Typer(
    name="qemu-netwrap",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    subcommand_metavar="[--] QEMU [ARGS]... | COMMAND [ARGS]...",
    context_settings=options.CONTEXT,
)

# click's own, which typer has inside from 0.29 on and does not name.
_WrongUsage: Any = typer.BadParameter.__base__

QemuWords = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGS]...", help="QEMU's words, as they are.")
]


def run(argv: list[str]) -> None:
    """Run the command line ARGV. Raises `NetwrapError`; exits otherwise."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or nft's end could not be waited for
    open_files.raise_own()
    os.umask(0o022)  # as the keeper: some of what is kept for `network up` is for others to read
    try:
        sys.exit(app(argv, prog_name="qemu-netwrap", standalone_mode=False))
    except _WrongUsage as error:
        where = error.ctx.command_path if error.ctx else "qemu-netwrap"
        raise UsageError(error.format_message(), f"see {where} --help") from None
    except typer.Abort:
        sys.exit(130)


@app.callback(
    invoke_without_command=True,
    epilog="In QEMU's words: -nic nat, -nic host-only, -nic tap[,network=NAME], -nic bridge,br=BR,"
    " and the same with -netdev and -net.",
)
def main(
    context: typer.Context,
    network: Annotated[
        str, typer.Option(metavar="NAME", help="The network of taps that name none.")
    ] = "",
    config: Annotated[
        str, typer.Option(metavar="FILE", help="The configuration, instead of the usual files.")
    ] = "",
    run_as: Annotated[
        str, typer.Option(metavar="USER", help="Run QEMU as another user, confined for good.")
    ] = "",
    keep_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --run-as: hand on an environment variable, too."),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing of NICs.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show each step as a command.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    yes_uplink: Annotated[
        bool,
        typer.Option("--yes-uplink", help="Let a bridge take in the NIC the host is reached by."),
    ] = False,
    bind_group: Annotated[
        bool,
        typer.Option("--bind-group", help="Give a device's whole IOMMU group to vfio-pci."),
    ] = False,
    force_uplink: Annotated[
        bool,
        typer.Option("--force-uplink", help="Pass through the NIC the host is reached by, too."),
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Provision the networks that a QEMU command line names, and become QEMU.

    What was made is gone when QEMU is gone. QEMU's words stay as they are, but for those that
    name a network of ours.
    """
    if version:
        echo(f"qemu-netwrap {qemu_netwrap.__version__}")
        raise typer.Exit
    context.obj = Request(
        (),
        network,
        config,
        run_as,
        quiet,
        verbose,
        debug,
        yes_uplink,
        bind_group,
        force_uplink,
        ",".join(keep_env or ()),
    )
    if context.invoked_subcommand in ("plan", "network", "config") and not quiet:
        for note in under_sudo.notes(context.obj):
            echo(f"qemu-netwrap: {note}", err=True)
    if context.invoked_subcommand is None:
        raise UsageError("no QEMU command is given", "qemu-netwrap -- qemu-system-x86_64 -nic nat")


@app.command(context_settings={"allow_interspersed_args": False})
def plan(
    context: typer.Context,
    qemu: Annotated[str, typer.Argument(metavar="QEMU", help="QEMU's program.")],
    args: QemuWords = None,
    json: options.Json = False,
) -> None:
    """Show what a launch would do and undo, and QEMU's new words. Changes nothing."""
    request = context.obj.replace(words=(qemu, *(args or ())))
    shown = preview(request)
    data = render.plan_data(shown) if json else None
    echo(json_module.dumps(data, indent=2) if json else render.plan_text(shown))


@app.command()
def ps(json: options.Json = False) -> None:
    """Show runs with their NICs, and networks with their members."""
    state = State.to_look("ps")
    runs, networks = status.all_runs(state), status.all_networks(state)
    if json:
        data = {"runs": render.plain(runs), "networks": render.plain(networks)}
        echo(json_module.dumps(data, indent=2))
    else:
        echo(render.ps_text(runs, networks))


@app.command()
def stop(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or guests' names.")],
    timeout: Annotated[
        float,
        typer.Option(
            parser=options.seconds,
            metavar="SECONDS",
            help="How long QEMU may take before SIGKILL.",
        ),
    ] = 10.0,
) -> None:
    """End a run's QEMU, with all its children, and wait for the teardown."""
    state = State.to_change("stop")
    for run_name in [status.find(state, name) for name in names]:
        killed = status.stop(state, run_name, timeout)
        if killed:
            echo(f"qemu-netwrap: run {run_name} had to be killed", err=True)


@app.command()
def wait(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs; all when none is named.")
    ] = None,
) -> None:
    """Return when the teardown of runs is over. That is at once for those that are gone."""
    state = State.to_look("wait")
    for run_name in names or state.runs():
        status.wait(state, status.find(state, run_name, over=True))


@app.command()
def gc() -> None:
    """Release what dead runs have left. Living runs are not touched."""
    released, errors = status.collect(State.to_change("gc"))
    if not released and not errors:
        echo("nothing was left")
    for line in released:
        echo(f"released: {line}" if line.startswith("run ") else line)
    if errors:
        for error in errors[1:]:
            echo(f"qemu-netwrap: {error.message}", err=True)
        raise NetwrapError(errors[0].message, errors[0].hint or "see to it, then run gc again")


Tap = Annotated[str, typer.Argument(metavar="TAP", help="The tap's name.")]


@app.command()
def ifup(tap: Tap) -> None:
    """Put a tap on the default network, as qemu-ifup does.

    It stays there until the QEMU that has it open is gone; if none has, until ifdown.
    """
    ifup_hook.ifup(tap)


@app.command()
def ifdown(tap: Tap) -> None:
    """Take a tap off the network that ifup or qemu-ifup has put it on."""
    ifup_hook.ifdown(tap)


app.add_typer(network_commands.app, name="network")
app.add_typer(config_commands.app, name="config")
app.add_typer(hooks.app, name="hooks")
app.add_typer(shim.app, name="shim")
app.add_typer(vfio.app, name="vfio")
app.command()(doctor.doctor)
