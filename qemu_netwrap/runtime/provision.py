"""The launcher's half of provisioning: plan, start the keeper, receive its descriptors."""

from __future__ import annotations

import os
import sys

from qemu_netwrap import linux, passthrough, realm, record_text, runtime, state
from qemu_netwrap.config import file
from qemu_netwrap.errors import NetwrapError, UsageError
from qemu_netwrap.linux import fds as handover
from qemu_netwrap.linux import host_facts, open_files, proc, waits
from qemu_netwrap.linux.fds import file_of, inherit
from qemu_netwrap.model.run import TapDescriptors
from qemu_netwrap.record import Record
from qemu_netwrap.report import tell
from qemu_netwrap.runtime import keeper, runs
from qemu_netwrap.runtime import plan as planning
from qemu_netwrap.runtime.launch_options import NETWORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.network import Config, Network
    from qemu_netwrap.model.run import RunSpec, TapRequest
    from qemu_netwrap.passthrough.assign import PassthroughPlan
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.realm import Realm
    from qemu_netwrap.runtime.launch_options import LaunchOptions
    from qemu_netwrap.runtime.plan import Plan

_FORMAT = 1  # of the keeper's messages
_MESSAGE = 65536
_ANCILLARY = 4096
_WORD_TIMEOUT = 5.0  # seconds


def provide(request: LaunchOptions, reading: NetworkOptions) -> tuple[str, ...]:
    """Have the keeper provision what READING wants; return QEMU's new command line.

    Raises `NetwrapError` if that fails; nothing is left behind then.
    """
    fill_standard()
    if "SUDO_UID" in os.environ and not request.quiet:
        for note in runtime.under_sudo.notes(request):
            tell(note)
    config = request.loaded or file.load(request.config)
    draft = make_plan(request, reading, config, str(os.getpid()))
    passing = passing_of(request, reading, config, draft)
    if "SUDO_UID" in os.environ:
        runtime.under_sudo.tell_root(request, reading, draft, passing)
    if not draft.nics and passing is None:
        return reading.line.words
    _check_apart(request, draft.wanted)
    open_files.require(1 + sum(map(_descriptors, draft.wanted.nics)), handover.first())
    job = _Job(request, reading, config, draft, passing)
    if passing is not None:
        realm.stay()
    if not realm.is_users():
        state.prepare()
        return _provide(job, state.StateDir.here(), None)
    runtime.users_networks.check(draft.wanted)
    state.prepare()
    with realm.Realm() as found:
        runtime.users_networks.connect(found, draft.wanted.networks, config, request)
        return _provide(job, state.StateDir(found.base), found)


class _Job(Record):
    """A launch that has been planned."""

    request: LaunchOptions
    reading: NetworkOptions
    config: Config
    draft: Plan
    passing: PassthroughPlan | None


def _provide(job: _Job, here: state.StateDir, users: Realm | None) -> tuple[str, ...]:
    """Provide what JOB needs, with its state in HERE, in the realm of a user if there is one."""
    request, reading, config = job.request, job.reading, job.config
    held = _hold(job.draft.wanted, here, users)
    run, lock = runs.claim_name(here, str(os.getpid()))
    lock = _own(here, run, lock, _uid(request.run_as))
    plan = job.draft if job.draft.run == run else make_plan(request, reading, config, run)
    wanted = plan.wanted
    keeping = keeper.KeeperJob(
        here,
        wanted,
        reserved_subnets(config),
        os.getpid(),
        verbose=request.verbose,
        debug=request.debug,
        passing=job.passing,
        realm=users,
        held=() if users is None else held,
    )
    _tell_notes(request, reading, plan)
    chosen: list[str] = []
    for_qemu = held if users is None else ()
    grants = run_keeper(keeping, _teller(request, wanted, chosen), lock, *for_qemu)
    for fd in for_qemu:
        inherit(fd)
    return _new_words(plan, grants, job.passing, chosen)


def _tell_notes(request: LaunchOptions, reading: NetworkOptions, plan: Plan) -> None:
    """Print the plan's notes, unless REQUEST is quiet."""
    if request.quiet:
        return
    for note in (*plan.notes, *(plan.details if request.verbose else ())):
        tell(note)
    if any("host_mtu" in word for word in reading.line.words) or reading.files:
        for note in runtime.mtu.notes(plan):
            tell(note)


def _new_words(
    plan: Plan,
    grants: dict[str, TapDescriptors],
    passing: PassthroughPlan | None,
    chosen: list[str],
) -> tuple[str, ...]:
    """Return QEMU's new command line; CHOSEN are the BDFs of devices that are passed through."""
    rewritten = plan.rewritten(grants)
    if passing is not None:
        rewritten = passthrough.assign.become(passing, rewritten, tuple(chosen))
    paths = {
        at: file_of(text.encode("utf-8", "surrogateescape")) for at, text in rewritten.files.items()
    }
    return rewritten.words(paths)


def _descriptors(nic: TapRequest) -> int:
    """Return how many descriptors QEMU inherits from us for a NIC: taps, vhosts and ports."""
    return nic.queues * (2 if nic.vhost else 1) + len(nic.forwards)


def _own(here: state.StateDir, run: str, lock: int, uid: int) -> int:
    """Move a run's lock to where QEMU (run as UID) inherits it; record QEMU as the run's owner.

    Returns the descriptor's new number. If that fails, the run is released and `OSError` raised.
    """
    try:
        lock = handover.inherit_lock(lock)
        runs.write_owner(here, run, proc.of(os.getpid()), uid, lock)
    except OSError:
        runs.release(here, run)
        raise
    return lock


def _uid(user: str) -> int:
    """Return the uid that QEMU will run as: this process's own if USER is empty."""
    return linux.users.uid_of(user) if user else os.geteuid()


def _check_apart(request: LaunchOptions, wanted: RunSpec) -> None:
    """Refuse to run QEMU as a user that could kill the networks' dnsmasq. Raises `UsageError`."""
    if request.run_as and any(network.traits.is_routed for network in wanted.networks):
        server = linux.accounts.account()
        if server.name == linux.accounts.NAME and server.uid == _uid(request.run_as):
            raise UsageError(
                f"--run-as {request.run_as}: the networks' dnsmasq runs as that user too, so that a"
                " QEMU could end it",
                "run QEMU as another user",
            )


def _hold(wanted: RunSpec, here: state.StateDir, users: Realm | None) -> tuple[int, ...]:
    """Take the host's ports that lead to the run's NICs; return the descriptors that hold them.

    In a realm of USERS a relay outlives its QEMU if the keeper has died: then that is ended first.
    Raises `HostError`, before anything is made.
    """
    if not any(nic.forwards for nic in wanted.nics):
        return ()

    def release() -> str:
        return " ".join(runs.release_dead_runs(here)[0])

    try:
        try:
            return runtime.host_ports.hold(wanted.nics, here)
        except NetwrapError:
            if users is None or not linux.namespaces.inside(users.namespaces, release):
                raise
            return runtime.host_ports.hold(wanted.nics, here)
    except NetwrapError:
        here.tidy()
        raise


def run_keeper(
    keeping: keeper.KeeperJob, heed: Callable[[str, dict[str, str]], None], *not_for_it: int
) -> dict[str, TapDescriptors]:
    """Start a keeper and wait until it is ready; return each tap's descriptors by the tap's name.

    HEED gets its messages meanwhile; NOT_FOR_IT are descriptors that it must not hold. Raises
    `NetwrapError` if the keeper fails or dies; nothing is left behind then.
    """
    try:
        socket = keeper.start(keeping, *not_for_it)
    except OSError:
        runs.release(keeping.state, keeping.wanted.run)
        raise
    try:
        grants = _receive(socket, heed)
    except EOFError:
        open_files.raise_own()  # this process will not become QEMU now
        if keeping.realm is not None and not realm.step_in():
            # The namespaces have gone with the keeper, and with them all that was in them. Without
            # this run's lock what is left, which is files, is of no use any more.
            for fd in not_for_it:
                os.close(fd)
            realm.is_there()
            failures: list[NetwrapError] = []
        else:
            failures = runs.release(keeping.state, keeping.wanted.run)
        left = "; ".join(error.message for error in failures)
        raise NetwrapError(
            "the keeper died before the network was up",
            f"not released: {left}" if left else "what it had made has been removed; try again",
        ) from None
    socket.close()
    return grants


def passing_of(
    request: LaunchOptions, reading: NetworkOptions, config: Config, plan: Plan
) -> PassthroughPlan | None:
    """Return the plan of what is passed through; None for nothing. Raises `NetwrapError`."""
    if not reading.may_pass_through:
        return None
    return passthrough.assign.look(
        reading,
        (host_facts.machine(), plan.vm),
        run_as=request.run_as,
        bind_group=request.bind_group or config.bind_group,
        force_uplink=request.force_uplink,
    )


def make_plan(request: LaunchOptions, reading: NetworkOptions, config: Config, run: str) -> Plan:
    """Collect the facts of the host that the plan needs, and plan. Raises `UsageError`."""
    chosen, chosen_by = request.network, ""
    if not chosen and (chosen := os.environ.get(NETWORK, "")):
        chosen_by = f"{NETWORK}={chosen}"
    asked = planning.questions(reading, config, chosen)
    facts = planning.Facts(
        run,
        host_facts.machine(),
        host_facts.existing(asked.ifnames),
        host_facts.host_bridge() if asked.host_bridge and not realm.is_users() else "",
        host_facts.folder(),
        request.yes_uplink,
    )
    return planning.make(reading, config, facts, chosen, chosen_by)


def reserved_subnets(config: Config) -> tuple[Subnet, ...]:
    """Return the subnets of configured networks, which no other network may be given."""
    return tuple(n.subnet for n in config.networks if n.subnet is not None)


def _receive(
    socket: _socket.socket, heed: Callable[[str, dict[str, str]], None]
) -> dict[str, TapDescriptors]:
    """Receive messages until the keeper is ready; return each tap's descriptors by the tap's name.

    Raises `EOFError` if the keeper dies, and the `NetwrapError` that it reports.
    """
    grants: dict[str, TapDescriptors] = {}
    tap, begun = "", b""
    told = False
    while True:
        if not told and not _has_word(socket):
            silence = f"the keeper has said nothing for {_WORD_TIMEOUT:.0f} seconds"
            tell(f"{silence}; ^C undoes what it did")
            told = True
        data, ancillary, _, _ = socket.recvmsg(_MESSAGE, _ANCILLARY)
        if not data:
            raise EOFError
        if data.startswith(keeper.MORE):
            begun += data[1:]
            continue
        data, begun = begun + data, b""
        kind, fields = record_text.read(data.decode("utf-8", "surrogateescape"))
        fds = tuple(inherit(fd) for _, _, raw in ancillary for fd in _unpack(raw))
        _check(kind, fields)
        if kind == "ready":
            return grants
        if kind == "taps":
            grants[tap] = grants[tap].replace(fds=(*grants[tap].fds, *fds))
        elif kind == "vhosts":
            grants[tap] = grants[tap].replace(vhost_fds=(*grants[tap].vhost_fds, *fds))
        elif kind == "nic":
            tap = fields["tap"]
            grants[tap] = TapDescriptors((), (), tuple(fields["macs"].split()))
        heed(kind, fields)


def _check(kind: str, fields: dict[str, str]) -> None:
    """Raise the error that the keeper reports, or one for messages of another format.

    The keeper gives up when the launcher ends.
    """
    if kind == "error":
        raise _KeeperError(fields["message"], fields["hint"], int(fields["status"]))
    if kind == "keeper" and fields["format"] != str(_FORMAT):
        raise NetwrapError(
            f"the keeper speaks format {fields['format']}, and the launcher {_FORMAT}",
            "qemu-netwrap was replaced while it started: try again",
        )


def _has_word(socket: _socket.socket) -> bool:
    """Wait for a message from the keeper; return whether one came within `_WORD_TIMEOUT`."""
    return waits.readable(socket.fileno(), _WORD_TIMEOUT)


class _KeeperError(NetwrapError):
    """An error that the keeper reports."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        """Keep the keeper's own exit status."""
        super().__init__(message, hint)
        self.status = status


def _teller(
    request: LaunchOptions, wanted: RunSpec, chosen: list[str]
) -> Callable[[str, dict[str, str]], None]:
    """Return a function that prints the keeper's messages for the user, on standard error.

    It appends the BDFs of devices that are passed through to CHOSEN.
    """
    nics = {nic.tap: nic for nic in wanted.nics}
    show_nics = not request.quiet and (request.verbose or os.isatty(2))

    def heed(kind: str, fields: dict[str, str]) -> None:
        if kind == "nic" and show_nics:
            nic = nics[fields["tap"]]
            macs = f", MAC {fields['macs']}" if fields["macs"] else ""
            on = _place(nic.network, fields)
            forwards = f", {fields['forwards']}" if fields["forwards"] else ""
            tell(f"{nic.label}: {nic.tap} on {on}{macs}{forwards}")
        elif kind == "device":
            chosen.append(fields["bdf"])
            if show_nics:
                whose = f", a virtual function of {fields['pf']}" if fields["pf"] else ""
                given = f", MAC {fields['mac']}" if fields["mac"] else ""
                tell(f"{fields['label']}: {fields['bdf']} passed through{whose}{given}")
        elif kind == "say" and not request.quiet:
            tell(fields["line"])

    return heed


def _place(network: Network, fields: dict[str, str]) -> str:
    """Return as text which network a NIC is on, with what the keeper reports of it."""
    own = "" if network.name == network.bridge else network.bridge
    more = ", ".join(filter(None, (f"{own} {fields['address']}".strip(), fields["made"])))
    return f"{network.name} ({more})" if more else network.name


def fill_standard() -> None:
    """Open descriptors 0 to 2 if they are closed: a file opened later would take their place.

    They are close-on-exec, so that QEMU finds them as they were.
    """
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)


def _unpack(raw: bytes) -> list[int]:
    """Return the descriptors in an SCM_RIGHTS message."""
    return [int.from_bytes(raw[at : at + 4], sys.byteorder) for at in range(0, len(raw) & ~3, 4)]
