"""The program's entry points: main() launches QEMU, or else runs the typer command line."""

from __future__ import annotations

import gc
import os
import sys

from qemu_netwrap import cli, linux, runtime
from qemu_netwrap.errors import NetwrapError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main() -> None:
    """Run the program. It becomes QEMU by execve, or exits."""
    gc.disable()  # a launch takes some milliseconds: collecting garbage would cost half of one
    argv = sys.argv[1:]
    debug = False
    try:
        if runtime.launcher.is_qemu_name(os.path.basename(sys.argv[0])):
            _be_qemu(sys.argv[0], argv)
        typed = cli.splitter.split(argv)
        debug = "--debug" in typed.options
        if typed.command or not typed.qemu:
            cli.main.run(argv)
        else:
            if cli.splitter.leaves_qemu_out(typed.qemu):
                typed = typed.replace(qemu=(linux.programs.qemu_of_machine(), *typed.qemu))
            runtime.launcher.launch(cli.splitter.request(typed), known=cli.splitter.COMMANDS)
    except (NetwrapError, OSError) as problem:
        if debug:
            raise
        _fail(problem)


def _be_qemu(shim: str, argv: list[str]) -> NoReturn:
    """Launch as the shim at path SHIM: all of ARGV are QEMU's options.

    The kernel gives a script its path, not the name it was called by (execve(2), "Interpreter
    scripts"). If PATH leads to the same path, the shim was most likely called by its name alone.
    """
    name = os.path.basename(shim)
    called = name if linux.programs.find(name) == shim else shim
    request = runtime.launch_options.LaunchOptions((called, *argv))
    runtime.launcher.launch(request, shim=shim)


def ifup() -> None:
    """Run as qemu-ifup, which QEMU calls with a tap's name. Exits if it fails."""
    _serve_tap("qemu-ifup", runtime.ifup_hook.ifup)


def ifdown() -> None:
    """Run as qemu-ifdown, which QEMU calls with a tap's name. Exits if it fails."""
    _serve_tap("qemu-ifdown", runtime.ifup_hook.ifdown)


def bridge_helper() -> None:
    """Run as the bridge helper, which QEMU calls for a tap's descriptor."""
    try:
        runtime.bridge_helper.serve(sys.argv[1:])
    except (NetwrapError, OSError) as problem:
        _fail(problem)


def _serve_tap(program: str, serve: Callable[[str], None]) -> None:
    """Call SERVE with the tap that the only argument names. An error ends the program."""
    try:
        if len(sys.argv) != 2:
            raise UsageError(f"{program}: expected a tap's name", f"as QEMU does: {program} tap0")
        serve(sys.argv[1])
    except (NetwrapError, OSError) as problem:
        _fail(problem)


def _fail(problem: NetwrapError | OSError) -> None:
    """Print the error, and exit with its status."""
    error = problem if isinstance(problem, NetwrapError) else _host_error(problem)
    _tell(error)
    sys.exit(error.status)


def _tell(error: NetwrapError) -> None:
    """Print an error on standard error. If that is closed, the exit status must do."""
    hint = f"  hint: {error.hint}\n" if error.hint else ""
    try:
        os.write(2, f"qemu-netwrap: {error.message}\n{hint}".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def _host_error(error: OSError) -> NetwrapError:
    """Return an error of the kernel that no code has handled as a `NetwrapError`."""
    where = f"{error.filename}: " if error.filename else ""
    return NetwrapError(
        f"{where}{error.strerror or error}", linux.remedies.remedy(error, "--debug shows where")
    )


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which `python -m` imports from: any user may own it
    main()
