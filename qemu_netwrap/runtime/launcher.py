"""The launch: read the command line, have its networks provisioned, become QEMU.

Every launch runs this code, even one with nothing to provision: so it imports little.
"""

from __future__ import annotations

import os
from _signal import (
    SIG_DFL,
    SIGCHLD,
    SIGINT,
    SIGPIPE,
    SIGXFSZ,
    default_int_handler,
    getsignal,
    signal,
)

import qemu_netwrap
from qemu_netwrap import linux, model, passthrough, qemu, runtime
from qemu_netwrap.errors import NotExecutableError, NotFoundError, UsageError
from qemu_netwrap.linux import programs
from qemu_netwrap.qemu import command_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from qemu_netwrap.linux.users import User
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.runtime.launch_options import LaunchOptions


_QEMUS = ("qemu", "kvm")
SHIMS = ("qemu-kvm", "kvm")
SHIM_PREFIX = "qemu-system-"
# Debian's packages, by the targets in them; the rest are in qemu-system-misc.
_PACKAGES = {
    "x86_64": "x86", "i386": "x86", "aarch64": "arm", "arm": "arm", "ppc": "ppc", "ppc64": "ppc",
    "mips": "mips", "mipsel": "mips", "mips64": "mips", "mips64el": "mips",
    "sparc": "sparc", "sparc64": "sparc",
}  # fmt: skip
# The file that QEMU reads before its options, where Debian, Fedora and Arch have it: the folder is
# chosen when QEMU is built (CONFIG_QEMU_CONFDIR), and no option of QEMU prints it.
OWN_CONFIG = "/etc/qemu/qemu.conf"


def launch(request: LaunchOptions, *, known: Iterable[str] = (), shim: str = "") -> NoReturn:
    """Become QEMU. Raises `NetwrapError` if that fails; nothing is left behind then.

    KNOWN are qemu-netwrap's commands, to suggest one if there is no such QEMU. SHIM is the path of
    qemu-netwrap if it was called by QEMU's name, else "".
    """
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)  # as in QEMU: no traceback, and the exit status of a signal
    # If the parent ignores it, children cannot be waited for. QEMU gets the parent's setting back.
    ignored = signal(SIGCHLD, SIG_DFL)
    program = find_behind(shim) if shim else find_program(request.words[0], known)
    if not os.environ.keys().isdisjoint(runtime.launch_options.SUDOS):
        request = runtime.under_sudo.settled(request)
    user = user_of(request)
    line, reading = read_line(request.words, program, user, leaves_typos=bool(shim))
    argv = line.words
    alone = reading is not None and _is_qemus_alone(request, reading, program, shim)
    if (line.may_set_up_taps or (alone and shim)) and not request.quiet:
        runtime.preflight_taps.check(line, user, program, alone=alone)
    if reading is not None and not alone:
        # This loads `provision`: a QEMU without networks of ours does not pay for it.

        argv = runtime.provision.provide(request, reading)
    elif "SUDO_UID" in os.environ and line.runs:
        runtime.under_sudo.tell_root(request)
    if not (request.quiet or os.path.basename(program).startswith(_QEMUS)):
        _hint_at_order(request.words)
    signal(SIGCHLD, ignored)
    _become(program, argv, user, keep=tuple(request.keep_env.split(",")))


def _hint_at_order(argv: tuple[str, ...]) -> None:
    """Print where another wrapper belongs, if QEMU's name is among its arguments."""
    names = (os.path.basename(word) for word in argv[1:])
    at = next((at for at, name in enumerate(names, 1) if name.startswith(SHIM_PREFIX)), 0)
    if at:
        before = " ".join(argv[:at])
        qemu_netwrap.report.tell(
            f"{argv[0]} is not QEMU and gets these arguments unchanged: put it in front:"
            f" {before} qemu-netwrap -- {argv[at]} ..."
        )


def is_qemu_name(name: str) -> bool:
    """Whether a program of that name is QEMU; qemu-netwrap called by such a name is a shim."""
    return name in SHIMS or name.startswith(SHIM_PREFIX)


def is_shim(path: str) -> bool:
    """Whether PATH is a link by QEMU's name that leads to qemu-netwrap."""
    target = os.path.realpath(path)
    return is_qemu_name(os.path.basename(path)) and os.path.basename(target) == "qemu-netwrap"


def find_program(name: str, known: Iterable[str] = ()) -> str:
    """Return the path of QEMU. Raises `NotFoundError` or `NotExecutableError`.

    KNOWN are qemu-netwrap's commands, to suggest one if there is no such program.
    """
    path = programs.find(name)
    if path and os.path.islink(path) and is_shim(path):
        path = programs.find_behind(path)
    if path:
        return path
    if programs.exists(name):
        raise NotExecutableError(f"{name}: it cannot be executed", "look at its mode: ls -l")
    hint = f"install it: {_package(name)}" if "qemu" in name else "is it on PATH?"

    near = model.suggest.suggestion(name, [*known, *programs.beginning("qemu-system-")])
    raise NotFoundError(f"{name}: there is no such program", f"{near}{hint}")


def find_behind(shim: str) -> str:
    """Return the path of the QEMU that comes after SHIM on PATH. Raises `NotFoundError`."""
    path = programs.find_behind(shim)
    if path:
        return path
    name = os.path.basename(shim)
    raise NotFoundError(
        f"{name}: there is none on PATH behind {shim}, which is qemu-netwrap",
        f"install it: {_package(name)}; or put its folder on PATH, after the shim's",
    )


def _package(name: str) -> str:
    """Return the command that installs the QEMU of that name on Debian and its kin."""
    _, prefix, target = name.rpartition(SHIM_PREFIX)
    package = _PACKAGES.get(target, "misc") if prefix else "x86"
    return f"apt install qemu-system-{package}"


def _is_qemus_alone(
    request: LaunchOptions, reading: NetworkOptions, program: str, shim: str
) -> bool:
    """Whether QEMU sets up its netdevs itself, by a setuid helper say: this user is not root.

    For a shim that is whatever QEMU understands, else only what it will manage.
    """
    if os.geteuid() == 0:
        return False
    if shim:
        return not reading.uses_extensions

    # Most launches are decided here: what `unaided` loads takes longer than entering a realm.
    if reading.uses_extensions or not runtime.unaided.can_do(request, reading, program):
        return False
    if reading.may_pass_through:
        passing = passthrough.assign.look(
            reading,
            run_as=request.run_as,
            bind_group=request.bind_group,
            force_uplink=request.force_uplink,
        )
        return passing is None
    return True


def read_line(
    argv: tuple[str, ...],
    program: str,
    user: User | None,
    *,
    asks: bool = True,
    leaves_typos: bool = False,
) -> tuple[command_line.CommandLine, NetworkOptions | None]:
    """Return QEMU's command line and its network options; None for these if there are none.

    QEMU is run to list its options only if one is unknown here, or is not in every QEMU; another
    program, a script that starts QEMU say, is never run for that. QEMU is run, and files are read,
    as USER, the user that QEMU will run as. Without ASKS it is not run. With LEAVES_TYPOS, as for a
    shim, a mistyped network type is QEMU's to report.
    """
    line = command_line.parse(argv)
    if asks and line.is_uncertain and os.path.basename(program).startswith(_QEMUS):
        with_argument, without = linux.host_facts.qemu_options(program, user)
        if with_argument:
            line = command_line.parse_for(argv, with_argument, without)
    if not line.runs:
        if line.prints_and_exits and any(line.named(*command_line.NETWORK)):
            line = line.with_options(qemu.help_words.in_qemus_words(line))
        return line, None
    files = {}
    if os.path.exists(OWN_CONFIG) or next(line.named("readconfig"), None):
        # A pipe can be read only once and would be empty for QEMU: QEMU gets a copy.
        copies = {at: linux.fds.file_of(data) for at, data in linux.qemu_files.pipes(line, user)}
        line = line.with_options(copies) if copies else line
        files = linux.qemu_files.load(line, program, OWN_CONFIG, user)
    if not files and not any(line.named(*command_line.NETWORK)) and not line.may_pass_through:
        return line, None
    # This loads the parser: a QEMU without network options does not pay for it.

    return line, qemu.network_options.interpret(
        line,
        files,
        lambda new: known(program, new, user) if asks else new,
        leaves_typos=leaves_typos,
    )


def known(program: str, strange: frozenset[str], user: User | None) -> frozenset[str]:
    """Return those of the STRANGE netdev types and keys that PROGRAM has; all if it is no QEMU."""
    if not os.path.basename(program).startswith(_QEMUS):
        return strange

    return linux.host_facts.qemu_knows(program, strange, user)


def user_of(request: LaunchOptions) -> User | None:
    """Return the user to run QEMU as; None without --run-as. Raises `NetwrapError`."""
    if "=" in request.keep_env:
        raise UsageError(
            f"--keep-env {request.keep_env}: this is no name of a variable",
            "it takes names alone: NAME=value qemu-netwrap --keep-env NAME",
        )
    if request.run_as:
        return linux.users.find(request.run_as)
    if request.keep_env:
        raise UsageError(
            "--keep-env is for --run-as, which alone drops environment variables",
            'add --run-as "$USER", or leave out --keep-env',
        )
    return None


def undo_pythons() -> None:
    """Undo what Python has changed at its start, for the program that this process becomes.

    Python ignores two signals. What its parent had set is unknown by now: almost always the
    default.
    """
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    _restore_locale()


def _restore_locale() -> None:
    """Restore LC_CTYPE: in the C locale Python sets it when it starts (PEP 538)."""
    if "LC_CTYPE" not in os.environ:
        return
    try:
        with open("/proc/self/environ", "rb") as file:  # as it was when this process began
            before = file.read().split(b"\0")
    except OSError:
        return
    given = [entry.partition(b"=")[2] for entry in before if entry.startswith(b"LC_CTYPE=")]
    if given:
        os.environb[b"LC_CTYPE"] = given[0]
    else:
        del os.environ["LC_CTYPE"]


def _become(
    program: str, argv: tuple[str, ...], user: User | None, keep: tuple[str, ...]
) -> NoReturn:
    """Replace this process by QEMU. With USER: in that user's environment plus KEEP's variables."""
    undo_pythons()
    environment = dict(os.environ)
    if user is not None:
        environment = linux.users.environment(user, keep)
        linux.users.become(user)
    try:
        os.execve(program, argv, environment)
    except OSError as error:
        raise NotExecutableError(f"{program}: {error.strerror}", "is it a program?") from error
