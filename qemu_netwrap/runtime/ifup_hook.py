"""qemu-ifup and qemu-ifdown: the scripts that QEMU runs for a tap of its own, once per netdev.

QEMU creates the tap, runs qemu-ifup before the guest starts and qemu-ifdown before it closes the
tap, and waits for both (net/tap.c, `launch_script`). A killed QEMU does not run qemu-ifdown: so
the run lasts as long as the tap, and the keeper releases the run when the tap is gone.
"""

from __future__ import annotations

import os
from _signal import SIG_DFL, SIGCHLD, signal

from qemu_netwrap.config import file
from qemu_netwrap.errors import HostError, UsageError
from qemu_netwrap.linux import files, holders, host_facts, open_files, proc
from qemu_netwrap.model.run import RunSpec, TapRequest
from qemu_netwrap.qemu import command_line
from qemu_netwrap.report import tell
from qemu_netwrap.runtime import keeper, network_choice, provision, runs
from qemu_netwrap.runtime.launch_options import NETWORK
from qemu_netwrap.runtime.plan import guest_name
from qemu_netwrap.state import StateDir, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.model.network import Config, Network


def ifup(name: str) -> None:
    """Put tap NAME on the network that the environment or the configuration names.

    Raises `NetwrapError`; nothing is left behind then, and QEMU does not start.
    """
    begin()
    tap = _tap(name)
    config = file.load()
    network = _network(name, config)
    _require_root(name)
    prepare()
    here = StateDir.here()
    if _has_run(here, tap, network):
        return
    run, lock = runs.claim_name(here, name)
    qemu = _qemu_of(name)
    if qemu is not None:
        runs.write_owner(here, run, qemu)
    guest, command = caller()
    nic = TapRequest(name, network, name, foreign=True)
    keeping = keeper.KeeperJob(
        here,
        RunSpec(run, (nic,), guest, command),
        provision.reserved_subnets(config),
        os.getppid(),
        by_tap=True,
    )
    provision.run_keeper(keeping, heed, lock)


def ifdown(name: str) -> None:
    """End the run of tap NAME: remove it from its network, which its last run takes down.

    Raises the first `NetwrapError` of what could not be released.
    """
    begin()
    if os.geteuid() != 0:
        # QEMU may have changed its user (-runas): then the keeper notices that the tap is gone.
        tap = host_facts.link(name)
        if tap is None or tap.carrier:
            return
        _require_root(name)
    prepare()
    here = StateDir.here()
    errors = [error for run in _runs_of(here, name) for error in runs.end(here, run, tell)]
    if errors:
        raise errors[0]


def begin(keep: int = -1) -> None:
    """Close descriptors inherited from QEMU (one would keep its tap alive) and reset SIGCHLD.

    KEEP is a descriptor to leave open; -1 for none.
    """
    files.close_from(3, keep)
    provision.fill_standard()
    open_files.raise_own()
    open_files.require()
    signal(SIGCHLD, SIG_DFL)


def _tap(name: str) -> Link:
    """Return the tap called NAME. Raises `UsageError` if there is no such tap."""
    link = host_facts.link(name)
    if link is None:
        raise UsageError(f"{name}: there is no such interface", "QEMU makes the tap and names it")
    if link.kind != "tun":
        raise UsageError(f"{name} is no tap", "a bridge's uplink is not for qemu-ifup to plug in")
    return link


def _qemu_of(tap: str) -> Process | None:
    """Return the QEMU that called, directly or through a user's script; None if called by hand.

    QEMU has the tap open, and so have the scripts in between, which inherit it: the eldest ancestor
    with the tap is QEMU. A shell from which a user calls the hook by hand does not have it open.
    """
    having = [pid for pid in proc.lineage(os.getppid()) if holders.has_tap(pid, tap)]
    return proc.of(having[-1]) if having else None


def _network(name: str, config: Config) -> Network:
    """Return the network that the tap is to join. Raises `UsageError`."""
    chosen = os.environ.get(NETWORK, "")
    ask = not (chosen or config.default)
    bridge = host_facts.host_bridge() if ask else ""
    return network_choice.default(config, chosen, f"{NETWORK}={chosen}", bridge, name)


def _require_root(name: str) -> None:
    """Raise `HostError` for a QEMU that runs as an ordinary user."""
    if os.geteuid() != 0:
        raise HostError(
            f"{name}: QEMU runs its scripts as its own user, and taps are root's to plug in",
            'start QEMU by sudo; or have it started: sudo qemu-netwrap --run-as "$USER" -- QEMU …',
        )


def _has_run(here: StateDir, tap: Link, network: Network) -> bool:
    """Whether the tap is on that network already. Raises `UsageError` if it is on another."""
    for run in here.runs():
        known = here.tap(run)
        if known is None or known.index != tap.index or not here.is_alive(run):
            continue
        _, nics = runs.read_info(here, run)
        if any(nic.bridge != network.bridge for nic in nics):
            raise UsageError(
                f"{tap.name} is on network {nics[0].network} already",
                f"take it off first: qemu-netwrap ifdown {tap.name}",
            )
        return True
    return False


def _runs_of(here: StateDir, name: str) -> list[str]:
    """Return the runs of tap NAME, which may have been renamed meanwhile."""
    taps = ((run, here.tap(run)) for run in here.runs())
    return [run for run, tap in taps if tap is not None and tap.name == name]


def caller() -> tuple[str, str]:
    """Return the guest's name and QEMU's command line; both "" if the parent is not QEMU."""
    argv = proc.command(os.getppid())
    if not any(name in "".join(argv[:1]) for name in ("qemu", "kvm")):
        return "", ""
    return guest_name(command_line.parse(argv)), " ".join(argv)


def heed(kind: str, fields: dict[str, str]) -> None:
    """Print what the keeper reports for the user; ignore its other messages."""
    if kind == "say":
        tell(fields["line"])
