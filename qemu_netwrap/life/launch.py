"""The launch: read the command line, have the keeper provision what it names, become QEMU."""

from __future__ import annotations

import fcntl
import os
import sys
from _signal import SIG_DFL, SIGINT, SIGPIPE, SIGXFSZ, default_int_handler, getsignal, signal

from qemu_netwrap.core import qemu_options, text, words
from qemu_netwrap.core.errors import NetwrapError, NotExecutableError, NotFoundError
from qemu_netwrap.core.model import Grant
from qemu_netwrap.core.record import Record
from qemu_netwrap.host import probe, which
from qemu_netwrap.planning import plan as planning

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import NoReturn

    from qemu_netwrap.core.ipv4 import Subnet
    from qemu_netwrap.core.model import Config
    from qemu_netwrap.planning.plan import Plan
    from qemu_netwrap.planning.reading import Reading

# Descriptors of ours are put out of the way of those that the user gives QEMU by number.
_FIRST_FD = 64
_MESSAGE = 65536
_ANCILLARY = 4096


class Request(Record):
    """What was typed: our options and QEMU's words, the program first."""

    words: tuple[str, ...]
    network: str = ""
    config: str = ""
    run_as: str = ""
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


def launch(request: Request) -> NoReturn:
    """Become QEMU. Raises `NetwrapError` if that fails; nothing is left behind then."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)  # as QEMU would have it: no traceback, the status of a signal
    program = find_program(request.words[0])
    user = _user(request.run_as)
    line, reading = read_line(request.words, program)
    argv = line.words if reading is None else _provision(request, reading)
    _become(program, argv, user)


def find_program(name: str) -> str:
    """Return the path of QEMU. Raises `NotFoundError` or `NotExecutableError`."""
    path = which.find(name)
    if path:
        return path
    if which.exists(name):
        raise NotExecutableError(f"{name}: it cannot be executed", "look at its mode: ls -l")
    hint = "install it: apt install qemu-system-x86" if "qemu" in name else "is it on PATH?"
    raise NotFoundError(f"{name}: there is no such program", hint)


def read_line(argv: tuple[str, ...], program: str) -> tuple[words.CommandLine, Reading | None]:
    """Return QEMU's words and what they want of us; None when QEMU gets them as they are.

    QEMU is asked which options it has only when one is unknown to us.
    """
    line = words.parse(argv)
    if line.unknown:
        with_argument, without = probe.qemu_options(program)
        line = words.parse(
            argv,
            qemu_options.WITH_ARGUMENT | with_argument,
            qemu_options.WITHOUT_ARGUMENT | without,
        )
    return line, planning.interpret(line)


def load_config(path: str) -> Config:
    """Return the configuration: of PATH, else of the first file that is there, else none."""
    from qemu_netwrap.host import configfile

    return configfile.load(path)


def make_plan(request: Request, reading: Reading, config: Config, run: str) -> Plan:
    """Ask the host what the plan needs to know, and plan."""
    asked = planning.questions(reading, config, request.network)
    facts = planning.Facts(
        run,
        probe.machine(),
        probe.existing(asked.ifnames),
        probe.host_bridge() if asked.host_bridge else "",
    )
    return planning.make(reading, config, facts, request.network)


def reserved_subnets(config: Config) -> tuple[Subnet, ...]:
    """Return the subnets that configured networks have, and no other may be given."""
    return tuple(n.subnet for n in config.networks if n.subnet is not None)


def _provision(request: Request, reading: Reading) -> tuple[str, ...]:
    """Have the keeper provision what READING wants; return QEMU's new words."""
    # Here, so that a QEMU without networks of ours does not pay for them.
    from qemu_netwrap.life import keeper, runs, state
    from qemu_netwrap.planning import rewrite

    config = load_config(request.config)
    draft = make_plan(request, reading, config, str(os.getpid()))
    if not draft.nics:
        return reading.line.words
    state.prepare()
    here = state.State.here()
    run, lock = runs.claim(here, os.getpid())
    plan = draft if draft.run == run else make_plan(request, reading, config, run)
    keeping = keeper.Keeping(
        here, plan, reserved_subnets(config), verbose=request.verbose, debug=request.debug
    )
    socket = keeper.start(keeping, lock)
    try:
        grants = _receive(socket, _teller(request, plan))
    except EOFError:
        runs.release(here, run)
        raise NetwrapError(
            "the keeper died before the network was up", "what it had made has been removed"
        ) from None
    socket.close()
    _inherit(lock)
    return rewrite.words(plan, grants)


def _receive(
    socket: _socket.socket, tell: Callable[[str, dict[str, str]], None]
) -> dict[str, Grant]:
    """Receive from the keeper until it is ready; return what each tap got.

    Raises `EOFError` when the keeper dies, and `NetwrapError` with what failed.
    """
    grants: dict[str, Grant] = {}
    tap = ""
    while True:
        data, ancillary, _, _ = socket.recvmsg(_MESSAGE, _ANCILLARY)
        if not data:
            raise EOFError
        kind, fields = text.read(data.decode("utf-8", "surrogateescape"))
        fds = tuple(_inherit(fd) for _, _, raw in ancillary for fd in _unpack(raw))
        if kind == "ready":
            return grants
        if kind == "error":
            raise _KeeperError(fields["message"], fields["hint"], int(fields["status"]))
        if kind == "taps":
            grants[tap] = grants[tap].replace(fds=(*grants[tap].fds, *fds))
        elif kind == "vhosts":
            grants[tap] = grants[tap].replace(vhost_fds=(*grants[tap].vhost_fds, *fds))
        elif kind == "nic":
            tap = fields["tap"]
            grants[tap] = Grant((), (), tuple(fields["macs"].split()))
        tell(kind, fields)


class _KeeperError(NetwrapError):
    """What the keeper says has failed."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        """Keep the keeper's own exit status."""
        super().__init__(message, hint)
        self.status = status


def _teller(request: Request, plan: Plan) -> Callable[[str, dict[str, str]], None]:
    """Return what to do with the keeper's words: tell the user, on standard error."""
    nics = {planned.nic.tap: planned.nic for planned in plan.nics}
    show_nics = not request.quiet and (request.verbose or sys.stderr.isatty())

    def tell(kind: str, fields: dict[str, str]) -> None:
        if kind == "nic" and show_nics:
            nic = nics[fields["tap"]]
            where = f" {fields['address']}" if fields["address"] else ""
            macs = f", MAC {fields['macs']}" if fields["macs"] else ""
            name = nic.network.name
            on = name if name == nic.network.bridge else f"{name} ({nic.network.bridge}{where})"
            _tell(f"{nic.label}: {nic.tap} on {on}{macs}")
        elif kind == "say" and not request.quiet:
            _tell(fields["line"])

    return tell


def _tell(line: str) -> None:
    """Say something on standard error; standard output is QEMU's."""
    sys.stderr.write(f"qemu-netwrap: {line}\n")


def _inherit(fd: int) -> str:
    """Move a descriptor to where QEMU inherits it; return its number as QEMU is told it."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FD)
    os.close(fd)
    return str(moved)


def _unpack(raw: bytes) -> list[int]:
    """Return the descriptors in an SCM_RIGHTS message."""
    return [int.from_bytes(raw[at : at + 4], sys.byteorder) for at in range(0, len(raw) & ~3, 4)]


class User(Record):
    """Whom QEMU is to run as."""

    name: str
    uid: int
    gid: int
    home: str


def _user(name: str) -> User | None:
    """Return the user to run QEMU as; None when nobody was named."""
    if not name:
        return None
    import pwd

    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise NetwrapError(f"--run-as {name}: there is no such user", "see getent passwd") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise NetwrapError(f"--run-as {name}: only root can become another user", "use sudo")
    return User(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)


def _drop_to(user: User) -> None:
    """Become an ordinary user with that user's groups; leaving uid 0 drops every capability."""
    if os.geteuid() != user.uid:
        os.setgroups(os.getgrouplist(user.name, user.gid))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name)


def _become(program: str, argv: tuple[str, ...], user: User | None) -> NoReturn:
    """Replace this process by QEMU."""
    # Python ignores these two; QEMU is to find them as the launcher's parent left them.
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    sys.stderr.flush()
    if user is not None:
        _drop_to(user)
    try:
        os.execv(program, argv)
    except OSError as error:
        raise NotExecutableError(f"{program}: {error.strerror}", "is it a program?") from error
