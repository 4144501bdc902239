"""qemu-netwrap-bridge-helper: what QEMU runs, by `helper=`, to get a tap on a bridge.

    qemu-netwrap-bridge-helper [--use-vnet] --br=BRIDGE --fd=SOCKET

It sends QEMU a tap's descriptor over the socket and exits (QEMU's net/tap.c,
`net_bridge_run_helper`). QEMU holds no run lock: the run lasts as long as the tap, as for the hook.
"""

from __future__ import annotations

import _socket
import os
import sys

from qemu_netwrap.config import file
from qemu_netwrap.errors import HostError, NetwrapError, UsageError
from qemu_netwrap.linux import bridge_conf, host_facts, proc
from qemu_netwrap.model.names import tap_name
from qemu_netwrap.model.run import RunSpec, TapRequest
from qemu_netwrap.qemu import bridge_conf as bridge_acl
from qemu_netwrap.record import Record
from qemu_netwrap.runtime import ifup_hook, keeper, network_choice, provision, runs
from qemu_netwrap.state import StateDir, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.network import Config, Network

_USAGE = "usage: qemu-netwrap-bridge-helper [--use-vnet] --br=BRIDGE --fd=SOCKET"


class Call(Record):
    """The arguments with which QEMU calls the helper."""

    bridge: str
    socket: int
    vnet_hdr: bool


def serve(words: list[str]) -> None:
    """Create a tap on a bridge and send it to QEMU. Raises `NetwrapError`; nothing is left then."""
    call = _read(words)
    ifup_hook.begin(keep=call.socket)
    if bridge_acl.verdict(bridge_conf.load(call.bridge), call.bridge) != bridge_acl.ALLOW:
        raise HostError(
            f"{bridge_conf.PATH} does not allow bridge {call.bridge}",
            f"add a line, if no other denies it: allow {call.bridge}",
        )
    config = file.load()
    network = _network(call.bridge, config)
    if os.geteuid() != 0:
        raise HostError(
            f"{call.bridge}: QEMU runs its helper as its own user, and taps are root's to make",
            "start QEMU by sudo; or use QEMU's own helper, which may be setuid",
        )
    prepare()
    here = StateDir.here()
    qemu = _caller(call.socket)
    run, lock = runs.claim_name(here, str(qemu))
    runs.write_owner(here, run, proc.of(qemu))
    tap = tap_name(run, 0)
    nic = TapRequest(f"--br={call.bridge}", network, tap, vnet_hdr=call.vnet_hdr)
    wanted = RunSpec(run, (nic,), *ifup_hook.caller())
    keeping = keeper.KeeperJob(here, wanted, provision.reserved_subnets(config), qemu, by_tap=True)
    grants = provision.run_keeper(keeping, ifup_hook.heed, lock, call.socket)
    _send(call.socket, int(grants[tap].fds[0]))


def _caller(socket: int) -> int:
    """Return the pid of the QEMU that called, directly or through a shell: it made the socket pair.

    The kernel records it (unix(7), SO_PEERCRED). If it is no ancestor, the parent is returned.
    """
    peer = _socket.socket(fileno=os.dup(socket))
    try:
        raw = peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    except OSError:
        return os.getppid()
    finally:
        peer.close()
    pid = int.from_bytes(raw[:4], sys.byteorder)
    return pid if pid in proc.lineage(os.getppid()) else os.getppid()


def _read(words: list[str]) -> Call:
    """Parse the arguments. Raises `UsageError`."""
    values = {"--br": "", "--fd": ""}
    vnet_hdr = False
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--use-vnet":
            vnet_hdr = True
        elif equals and name in values:
            values[name] = value
        else:
            raise UsageError(f"{word}: unknown option", _USAGE)
    if not values["--br"] or not values["--fd"].isdecimal():
        raise UsageError("--br= and --fd= are needed", _USAGE)
    try:
        socket = int(values["--fd"])
        os.fstat(socket)
    except (OSError, OverflowError, ValueError):
        raise UsageError(f"--fd={values['--fd']}: there is no such descriptor", _USAGE) from None
    return Call(values["--br"], socket, vnet_hdr)


def _network(bridge: str, config: Config) -> Network:
    """Return the network on BRIDGE. Raises `HostError` if it neither exists nor is configured.

    A launch would create it; but a user who writes `helper=` expects the bridge to exist.
    """
    network = network_choice.on_bridge(bridge, config, f"--br={bridge}")
    described = config.by_bridge(bridge) is not None or not network.traits.is_plain
    if not described and host_facts.link(bridge) is None:
        raise HostError(
            f"bridge {bridge} is not there",
            f'make it; or have it made, by a network in the configuration with bridge = "{bridge}"',
        )
    return network


def _send(socket: int, tap: int) -> None:
    """Send QEMU the tap: one byte, with the descriptor as ancillary data."""
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, tap.to_bytes(4, sys.byteorder))
    try:
        _socket.socket(fileno=socket).sendmsg([b"\0"], [rights])
    except OSError as error:
        raise NetwrapError(
            f"--fd={socket}: {error.strerror}",
            "it is QEMU who calls this, with a socket of its own",
        ) from error
