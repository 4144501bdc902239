"""Putting back what has died of an ordinary user's networks, while guests live on them.

What is started outside of the user's network namespace is this process's own to start: the program
that leads out, and the ports of the host. For the rest a child of it enters.
"""

from __future__ import annotations

import os

from qemu_netwrap import linux, realm, resources, runtime
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.linux import dnsmasq, proc, way_out
from qemu_netwrap.linux.proc import Process
from qemu_netwrap.resources.base import Context
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.runtime import membership
from qemu_netwrap.state import StateDir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_netwrap.model.run import PortForward
    from qemu_netwrap.realm import Realm
    from qemu_netwrap.resources.base import Resource

_NONE = Process(0, "")  # for one that has died: it cannot be watched


def watched(state: StateDir, run: str, own: Iterable[int]) -> list[Process]:
    """Return what the warden of RUN is to watch.

    OWN are the run's QEMU and its keeper. With them is what networks consist of, and what leads
    ports to the run. `_NONE` is among them if something is missing, of another run too.
    """
    return [*map(proc.of, own), *_parts(state), *_relays(state, run)]


def as_words(found: Iterable[Process]) -> str:
    """Return processes as words of the warden's command line."""
    return " ".join(f"{each.pid} {each.started or '-'}" for each in found)


def _parts(state: StateDir) -> Iterator[Process]:
    """Yield the processes that the networks in STATE consist of."""
    if realm.has_way_out(state.base):
        yield (leading.process if (leading := _leading(state.base)) else _NONE)
    work = Context(state)
    for bridge in state.networks():
        folder = state.network(bridge)
        if os.path.exists(f"{folder}/dnsmasq.conf"):
            yield dnsmasq.find(folder) or _NONE
        if membership.follows(bridge, work):
            yield resources.lookout.find(folder) or _NONE


def _leading(base: str) -> way_out.WayOut | None:
    """Return the program that leads out of the realm with the state BASE, or has until it died."""
    return way_out.read(realm.way_out_of(base))


def _relays(state: StateDir, run: str) -> Iterator[Process]:
    """Yield what leads ports to RUN, and `_NONE` for what has led ports to another run."""
    for each in filter(state.is_alive, state.runs()):
        for file in state.relays(each):
            found = resources.port_relay.read(file)
            if found is None or not proc.is_running(found):
                yield _NONE
            elif each == run:
                yield found


def mend(folder: str) -> str:
    """Put back what has died of the networks of the run in FOLDER, and of other runs on them.

    Returns what its warden is to watch, as words; "" if the run is over.
    """
    state, run = StateDir.of_folder(folder)
    try:
        _mend(state)
    except (NetwrapError, OSError):
        pass  # `ps` reports it; the next death, or the next run that joins, tries again
    own = {pid for name in ("lock", "keeper") for pid in linux.holders.of_file(f"{folder}/{name}")}
    own.discard(os.getpid())
    return as_words(watched(state, run, own)) if own else ""


def _mend(state: StateDir) -> None:
    """Put back what has died in the realm with STATE. Raises `NetwrapError` or `OSError`."""
    if realm.is_system():
        return  # no realm's file names STATE: to look for the realm, locked, could take for ever
    found = realm.Realm()
    ports: dict[tuple[str, str, int, bool], int] = {}
    try:
        if not found.find_alone() or found.base != state.base:
            return
        _lead_out(found)
        lost = list(_lost(state, ports))
        child = os.fork()
        if child == 0:
            try:
                found.enter()
                found.close()
                _mend_inside(state, lost, ports)
            finally:
                os._exit(0)
        found.close()
        os.waitpid(child, 0)
    finally:
        found.close()
        for fd in ports.values():
            os.close(fd)
        realm.tidy(state.base)  # its last run may have ended while it was locked


def _lead_out(found: Realm) -> None:
    """Start the program that leads out of a realm, which is locked alone, if it has died."""
    if not realm.has_way_out(found.base) or way_out.alive(realm.way_out_of(found.base)):
        return
    leading = _leading(found.base)
    try:
        runtime.users_networks.lead_out(found, leading.program if leading else "auto")
    except HostError:
        pass  # it has been removed from the host


def _lost(state: StateDir, ports: dict[tuple[str, str, int, bool], int]) -> Iterator[Resource]:
    """Yield what has died of living runs, with the host's ports taken anew, into PORTS.

    A relay one of whose ports another program has by now is left out.
    """
    work = Context(state)
    for run in filter(state.is_alive, state.runs()):
        for entry in Journal(f"{state.run(run)}/journal").peek():
            forwards = entry.resource.ports_lost(work)
            taken = _taken(forwards)
            if taken:
                ports.update(taken)
                yield entry.resource


def _taken(forwards: tuple[PortForward, ...]) -> dict[tuple[str, str, int, bool], int]:
    """Return the descriptors of the host's ports of FORWARDS; none if one cannot be had."""
    taken: dict[tuple[str, str, int, bool], int] = {}
    try:
        for each in forwards:
            key = (each.protocol, each.host, each.port, each.is_ipv6)
            taken[key] = runtime.host_ports.take(each)
    except OSError:
        for fd in taken.values():
            os.close(fd)
        return {}
    return taken


def _mend_inside(
    state: StateDir, lost: list[Resource], ports: dict[tuple[str, str, int, bool], int]
) -> None:
    """Put back what is in the realm, which this process has entered; start LOST with PORTS."""
    work = Context(state)
    work.ports = ports
    for each in lost:
        each.start_again(work)
    if realm.has_way_out(state.base):
        membership.await_way_out(work)
    for bridge in state.networks():
        try:
            membership.mend(bridge, work)
        except (NetwrapError, OSError):
            continue  # `ps` reports it
