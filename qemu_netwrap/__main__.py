"""The program's entry: a launch goes straight through, all else goes to the command line."""

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
    """Run the program. Ends in QEMU, or exits."""
    gc.disable()  # a launch lives some milliseconds: looking for garbage costs half of one
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
            runtime.launcher.launch(cli.splitter.request(typed), known=cli.splitter.COMMANDS)
    except (NetwrapError, OSError) as problem:
        if debug:
            raise
        _fail(problem)


def _be_qemu(shim: str, argv: list[str]) -> NoReturn:
    """Launch as the shim at path SHIM: all words are QEMU's.

    The kernel tells a script its path, not how it was called (execve(2), "Interpreter scripts"): a
    path that PATH leads to was found there, as almost always.
    """
    name = os.path.basename(shim)
    called = name if linux.programs.find(name) == shim else shim
    request = runtime.launch_options.LaunchOptions((called, *argv))
    runtime.launcher.launch(request, shim=shim)


def ifup() -> None:
    """Be qemu-ifup: QEMU calls it with a tap's name. Exits."""
    _serve_tap("qemu-ifup", runtime.ifup_hook.ifup)


def ifdown() -> None:
    """Be qemu-ifdown: QEMU calls it with a tap's name. Exits."""
    _serve_tap("qemu-ifdown", runtime.ifup_hook.ifdown)


def bridge_helper() -> None:
    """Be the bridge helper: QEMU calls it for a tap's descriptor. Exits."""
    try:
        runtime.bridge_helper.serve(sys.argv[1:])
    except (NetwrapError, OSError) as problem:
        _fail(problem)


def _serve_tap(program: str, serve: Callable[[str], None]) -> None:
    """Do something with the tap that the one argument names."""
    try:
        if len(sys.argv) != 2:
            raise UsageError(f"{program}: expected a tap's name", f"as QEMU does: {program} tap0")
        serve(sys.argv[1])
    except (NetwrapError, OSError) as problem:
        _fail(problem)


def _fail(problem: NetwrapError | OSError) -> None:
    """Tell what went wrong, and exit."""
    error = problem if isinstance(problem, NetwrapError) else _host_error(problem)
    _tell(error)
    sys.exit(error.status)


def _tell(error: NetwrapError) -> None:
    """Print an error on standard error, if that is open: the status tells it too."""
    hint = f"  hint: {error.hint}\n" if error.hint else ""
    try:
        os.write(2, f"qemu-netwrap: {error.message}\n{hint}".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def _host_error(error: OSError) -> NetwrapError:
    """Return what the kernel refused, and nobody foresaw, as an error of ours."""
    where = f"{error.filename}: " if error.filename else ""
    return NetwrapError(
        f"{where}{error.strerror or error}", linux.remedies.remedy(error, "--debug shows where")
    )


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which `python -m` imports from: it may be anybody's
    main()
