"""The command line apart from the plain launch, by typer."""

from __future__ import annotations

import json as json_module
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import qemu_netwrap
from qemu_netwrap import realm
from qemu_netwrap.cli import (
    config as config_commands,
)
from qemu_netwrap.cli import (
    declare,
    doctor,
    hooks,
    overview,
    render,
    shim,
    splitter,
    vfio,
)
from qemu_netwrap.cli import (
    network as network_commands,
)
from qemu_netwrap.cli.output import echo
from qemu_netwrap.doctor import probe
from qemu_netwrap.errors import NetwrapError, UsageError
from qemu_netwrap.linux import open_files, programs
from qemu_netwrap.linux.inherited import Inherited
from qemu_netwrap.runtime import exec_inside, ifup_hook, status, under_sudo, users_runs
from qemu_netwrap.runtime.launch_options import LaunchOptions
from qemu_netwrap.runtime.preview import preview
from qemu_netwrap.state import StateDir


class _Program(TyperGroup):
    """The program itself, whose help is the overview: typer's sorts nothing and cuts sentences."""

    def format_help(self, _context: object, formatter: Any) -> None:  # noqa: ANN401 - click's own
        """Write the help."""
        formatter.write(overview.text(with_options=True))


app = typer.Typer(
    name="qemu-netwrap",
    cls=_Program,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=declare.CONTEXT,
)

_GIVEN = f"{__name__}.given"  # in click's `meta`: what this process has from its parent
# click.UsageError: typer bundles click from 0.29 on, and does not export this class.
_WrongUsage: Any = typer.BadParameter.__base__


def run(argv: list[str]) -> None:
    """Run the command line ARGV. Raises `NetwrapError`; exits otherwise."""
    given = Inherited.now()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, waiting for nft fails
    open_files.raise_own()
    os.umask(0o022)  # as in the keeper: other users read some files of `network up`
    if not argv:
        # A status of failure: a script whose variable is empty meant something else.
        echo(overview.text())
        sys.exit(UsageError.status)
    argv = _with_qemu(argv)
    try:
        sys.exit(app(argv, prog_name="qemu-netwrap", standalone_mode=False, obj=given))
    except _WrongUsage as error:
        where = error.ctx.command_path if error.ctx else "qemu-netwrap"
        if error.ctx and error.message == "Missing command.":
            echo(error.ctx.get_help())
            sys.exit(UsageError.status)
        raise UsageError(error.format_message(), f"see {where} --help") from None
    except typer.Abort:
        sys.exit(130)


def _with_qemu(argv: list[str]) -> list[str]:
    """Return ARGV, with this machine's QEMU behind `plan` if none is named there."""
    typed = splitter.split(argv)
    at = len(typed.options) + 1
    while argv[at : at + 1] == ["--json"]:
        at += 1
    behind = at + (argv[at : at + 1] == ["--"])
    if typed.command != "plan" or not argv[behind:] or argv[behind] in declare.HELP_NAMES:
        return argv
    if splitter.leaves_qemu_out(tuple(argv[behind:])):
        return [*argv[:at], "--", programs.qemu_of_machine(), *argv[behind:]]
    return argv


@app.callback(
    invoke_without_command=True,
    help=declare.help_of(""),
)
def main(
    context: typer.Context,
    network: Annotated[str, declare.option("--network")] = "",
    config: Annotated[str, declare.option("--config")] = "",
    run_as: Annotated[str, declare.option("--run-as")] = "",
    keep_env: Annotated[list[str] | None, declare.option("--keep-env")] = None,
    yes_uplink: Annotated[bool, declare.option("--yes-uplink")] = False,
    bind_group: Annotated[bool, declare.option("--bind-group")] = False,
    force_uplink: Annotated[bool, declare.option("--force-uplink")] = False,
    quiet: Annotated[bool, declare.option("--quiet")] = False,
    verbose: Annotated[bool, declare.option("--verbose")] = False,
    debug: Annotated[bool, declare.option("--debug")] = False,
    version: Annotated[bool, declare.option("--version")] = False,
) -> None:
    """Read the options before a command; without a command there is nothing to do."""
    if version:
        echo(_versions())
        raise typer.Exit
    context.meta[_GIVEN] = context.obj
    context.obj = LaunchOptions(
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
    if context.invoked_subcommand in ("plan", "exec", "network", "config") and not quiet:
        for note in under_sudo.notes(context.obj):
            echo(f"qemu-netwrap: {note}", err=True)
    if context.invoked_subcommand is None:
        raise UsageError("no QEMU command is given", "qemu-netwrap -- qemu-system-x86_64 -nic nat")


def _versions() -> str:
    """Return the versions of the program, of its Python and of the QEMU found, a line each."""
    python = ".".join(map(str, sys.version_info[:3]))
    found = probe.qemu()
    version = found.version or "of an unknown version"  # root asks no program of another user's
    qemu = f"QEMU {version} ({found.path})" if found.path else "QEMU: there is none on PATH"
    own = f"qemu-netwrap {qemu_netwrap.__version__}"
    return f"{own}\nPython {python} ({sys.executable})\n{qemu}"


@declare.command(app, "help")
def help_(
    words: Annotated[list[str] | None, declare.argument("COMMAND", "help")] = None,
) -> None:
    """Show the help of a command, as its --help does."""
    app([*(words or ()), "--help"], prog_name="qemu-netwrap", standalone_mode=False)


@declare.command(app, "plan", allow_interspersed_args=False)
def plan(
    context: typer.Context,
    qemu: Annotated[str, declare.argument("QEMU", "plan")],
    args: Annotated[list[str] | None, declare.argument("ARGS", "plan")] = None,
    json: declare.Json = False,
) -> None:
    """Show what a launch would do and undo, and QEMU's new words. Changes nothing."""
    request = context.obj.replace(words=(qemu, *(args or ())))
    shown = preview(request)
    data = render.plan_data(shown) if json else None
    echo(json_module.dumps(data, indent=2) if json else render.plan_text(shown))


@declare.command(app, "ps")
def ps(
    all_users: Annotated[bool, declare.option("--all", "ps")] = False,
    json: declare.Json = False,
) -> None:
    """Show runs with their NICs, and networks with their members; of all users for root."""
    if all_users and not realm.is_system():
        raise UsageError(
            "ps --all: the runs of others are root's to see", "sudo qemu-netwrap ps --all"
        )
    state = StateDir.to_look("ps")
    runs, networks = status.all_runs(state), status.all_networks(state)
    looks = [users_runs.Look("root", tuple(runs), tuple(networks))]
    looks += users_runs.looks() if all_users else []
    if json:
        echo(json_module.dumps(render.ps_data(looks, users=all_users), indent=2))
    else:
        echo(render.ps_text(looks, users=all_users))


@declare.command(app, "stop")
def stop(
    names: Annotated[list[str], declare.argument("RUN", "stop")],
    timeout: Annotated[float, declare.option("--timeout", "stop")] = 10.0,
) -> None:
    """End a run's QEMU, with all its children, and wait for the teardown."""
    state = StateDir.to_change("stop")
    for run_name in [status.find(state, name) for name in names]:
        killed = status.stop(state, run_name, timeout)
        if killed:
            echo(f"qemu-netwrap: run {run_name} had to be killed", err=True)


@declare.command(app, "wait")
def wait(
    names: Annotated[list[str] | None, declare.argument("RUN", "wait")] = None,
) -> None:
    """Return when the teardown of runs is over. That is at once for those that are gone."""
    state = StateDir.to_look("wait")
    for run_name in names or state.runs():
        status.wait(state, status.find(state, run_name, over=True))


@declare.command(app, "exec", allow_interspersed_args=False)
def exec_(
    context: typer.Context,
    network: Annotated[str, declare.argument("NETWORK", "exec")],
    command: Annotated[list[str] | None, declare.argument("COMMAND", "exec")] = None,
) -> None:
    """Become a command, or a shell, in a network's namespace, with its DNS."""
    words = command or []
    if words[:1] == ["--"]:
        del words[0]
    elif words and words[0].startswith("-"):
        raise UsageError(
            f"{words[0]}: exec {network} has no such option",
            f"a command stands behind --: qemu-netwrap exec {network} -- ssh web",
        )
    request: LaunchOptions = context.obj.replace(words=tuple(words))
    exec_inside.run(network, request, context.meta[_GIVEN])


@declare.command(app, "gc")
def gc() -> None:
    """Release what dead runs have left. Living runs are not touched."""
    released, errors = status.collect(StateDir.to_change("gc"))
    if not released and not errors:
        echo("nothing was left")
    for line in released:
        echo(f"released: {line}" if line.startswith("run ") else line)
    if errors:
        for error in errors[1:]:
            echo(f"qemu-netwrap: {error.message}", err=True)
        raise NetwrapError(errors[0].message, errors[0].hint or "see to it, then run gc again")


Tap = Annotated[str, declare.argument("TAP", "ifup")]


@declare.command(app, "ifup")
def ifup(tap: Tap) -> None:
    """Put a tap on the default network, as qemu-ifup does."""
    ifup_hook.ifup(tap)


@declare.command(app, "ifdown")
def ifdown(tap: Tap) -> None:
    """Take a tap off the network that ifup or qemu-ifup has put it on."""
    ifup_hook.ifdown(tap)


app.add_typer(network_commands.app, name="network")
app.add_typer(config_commands.app, name="config")
app.add_typer(hooks.app, name="hooks")
app.add_typer(shim.app, name="shim")
app.add_typer(vfio.app, name="vfio")
declare.command(app, "doctor")(doctor.doctor)
