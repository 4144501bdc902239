"""Effects of passing devices of the host through: drivers, virtual functions, group nodes.

Acquiring is done with the device's lock held (`Shared.lock`); releasing takes it where several runs
share something.
"""

from __future__ import annotations

import os

from qemu_netwrap import linux, record_text, runtime
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, pci, polling
from qemu_netwrap.linux.netlink import interface_state
from qemu_netwrap.model.pci import VFIO, Device
from qemu_netwrap.passthrough.pci_state import BY_HAND, Shared
from qemu_netwrap.resources import kinds as r

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.resources.effects import Facts, Note, Work
    from qemu_netwrap.state import State

_MOMENT = 1.0  # seconds for somebody who just looks


def look(label: str, bdf: str) -> Device:
    """Return what sysfs tells of a device. Raises `HostError` if there is none."""
    device = pci.look(bdf)
    if device is None:
        raise HostError(f"{label}: there is no PCI device {bdf}", "see lspci -D")
    return device


def other_run(bdf: str, run: str, work: Work) -> str:
    """Return the run that has claimed a device, as a message names it; empty if none has.

    What a dead run has not given back is somebody's to release first.
    """
    found = _others_claim(bdf, run, work)
    if found is None:
        return ""
    state, other = found
    if other == BY_HAND:
        return f"qemu-netwrap vfio bind; if that was killed: qemu-netwrap vfio unbind {bdf}"
    dead = "" if state.is_alive(other) else ", which is dead: run qemu-netwrap gc"
    return f"run {other}{dead}"


def check_free(label: str, device: Device, run: str, work: Work) -> None:
    """Raise `HostError` for a device that another run than RUN has."""
    user = other_run(device.bdf, run, work)
    if user:
        raise HostError(f"{label}: {device} is in use by {user}", "see qemu-netwrap vfio list")


def _others_claim(bdf: str, run: str, work: Work) -> tuple[State, str] | None:
    """Return who has claimed a device; None if that is nobody, or RUN itself.

    What `vfio bind` has taken is no network namespace's.
    """
    found = Shared(work.state).claimant(bdf)
    if found is None or found == (work.state, run) or found[1] == run == BY_HAND:
        return None
    return found


def await_ending(bdf: str, work: Work) -> bool:
    """Wait a while for a run that is over, and whose keeper just gives a device back.

    Return whether there was one.
    """
    found = Shared(work.state).claimant(bdf)
    if found is None or not _is_ending(*found):
        return False
    state, run = found
    work.say(f"{bdf}: waiting for run {run}, which is giving it back")
    keeper = f"{state.run(run)}/keeper"
    polling.wait(lambda: not files.is_locked(keeper), pci.PATIENCE)
    return True


def _is_ending(state: State, run: str) -> bool:
    """Whether a run's keeper lives, and nobody else has the run's lock: its QEMU is gone.

    Told by who has the lock open, for the keeper locks it when QEMU has let go.
    """
    folder = state.run(run)
    if not files.is_locked(f"{folder}/keeper"):
        return False

    return not runtime.owners.others(state, run)


def is_open(device: Device) -> bool:
    """Whether a process has a device's group open."""
    return bool(device.group) and device.is_on_vfio and pci.is_group_open(device.group)


def holder(device: Device) -> str:
    """Return the process that has a device's group open; empty if none has.

    Another of ours who just looks whether it is open has it so for a moment, too.
    """
    if not is_open(device):
        return ""
    by = pci.group_holder(device.group)
    if not by:
        polling.wait(lambda: not is_open(device), _MOMENT)
    return by or ("a process" if is_open(device) else "")


def user_of(device: Device, work: Work) -> str:
    """Return who uses a VF; empty if nobody seems to."""
    user = other_run(device.bdf, "", work)
    if user:
        return user
    by = holder(device)
    if by or device.is_on_vfio or not device.driver:
        return by
    # One that a driver of this host has, and whose interface is elsewhere, is a container's.
    if device.ifnames and all(map(interface_state.is_idle, device.ifnames)):
        return ""
    return f"the host ({', '.join((device.driver, *device.ifnames))})"


def acquire_binding(b: r.PciBinding, note: Note, work: Work) -> Iterator[None]:
    """Claim a device and give it to vfio-pci; what it was is written down first."""
    with Shared(work.state).driver_lock(b.bdf):
        _take(b, note, work)
    yield


def _take(b: r.PciBinding, note: Note, work: Work) -> None:
    """Do what `acquire_binding` does, with the lock held.

    Of two runs that want one group each has looked with the lock of its own device only.
    """
    device = look(b.bdf, b.bdf)
    check_free(b.bdf, device, b.run, work)
    pci.load(VFIO)
    links = {
        f"link{number}": interface_state.save(name) for number, name in enumerate(device.ifnames)
    }
    note(driver=device.driver, override=device.override, **links)
    files.write(Shared(work.state).claim(b.bdf), f"{work.state.base} {b.run}", 0o644)
    if not device.is_on_vfio:
        pci.unbind(b.bdf)
        pci.bind(b.bdf, VFIO)


def release_binding(b: r.PciBinding, facts: Facts, work: Work) -> Iterator[None]:
    """Give a device back to its driver, with its override and its interfaces as they were.

    One that somebody else has come to have is his: what this one wrote down is of before.
    """
    shared = Shared(work.state)
    # What a killed keeper's child is still writing comes first.
    with shared.driver_lock(b.bdf):
        if _others_claim(b.bdf, b.run, work) is None:
            device = pci.look(b.bdf)
            if device is not None and "driver" in facts:
                _give_back(device, facts)
            files.remove(shared.claim(b.bdf))
        files.remove_scratch(f"{shared.base}/claims", b.bdf)
    shared.tidy()
    yield


def _give_back(device: Device, facts: Facts) -> None:
    """Make a device what FACTS say it was, if that is not so. Raises `HostError`."""
    bdf, before = device.bdf, facts["driver"]
    if device.driver == VFIO != before:
        pci.wait_group_closed(device.group)
        pci.unbind(bdf)
    if before and pci.driver(bdf) != before:
        pci.bind(bdf, before)
    if pci.override(bdf) != facts["override"]:
        pci.set_override(bdf, facts["override"])
    saved = [value for key, value in facts.items() if key.startswith("link")]
    names = interface_state.wait_interfaces(lambda: pci.ifnames(bdf), len(saved))
    if len(names) < len(saved):
        lost = ", ".join(record_text.read(line)[0] for line in saved[len(names) :])
        raise HostError(
            f"{bdf}: driver {before} has it again, and makes no interface {lost}",
            "the kernel's log says more: dmesg",
        )
    for name, line in zip(names, saved, strict=False):
        interface_state.restore(name, line)


def acquire_functions(v: r.VirtualFunctions, note: Note, work: Work) -> Iterator[None]:
    """Use a physical function: make its VFs if there are none, and bring it up if it is down."""
    path = Shared(work.state).functions(v.pf)
    pf = look(v.pf, v.pf)
    made, was, *users = files.read(path).split() or ["", ""]
    up = interface_state.is_up(pf.ifnames[0])
    if not made:
        made, was = str(int(not pf.vfs)), ",".join((str(int(up)), *_carried(pf.ifnames[0])))
    files.write(path, "\n".join((made, was, *dict.fromkeys((*users, _name(v.run, work))))))
    if v.count and not pf.vfs:
        note(autoprobe=pci.autoprobe(v.pf))
        pci.set_vf_count(v.pf, v.count)
    if not up:
        # Without it a VF has no carrier, and some get no MAC.
        work.say(f"{pf.ifnames[0]} was down: brought up for its virtual functions")
        interface_state.set_up(pf.ifnames[0], up=True)
    yield


def release_functions(v: r.VirtualFunctions, facts: Facts, work: Work) -> Iterator[None]:
    """Leave a physical function; the last one removes the VFs that we made, and sets it down."""
    shared = Shared(work.state)
    with shared.lock_of(v.pf):
        path = shared.functions(v.pf)
        files.remove_scratch(f"{shared.base}/functions", v.pf)
        made, was, *users = files.read(path).split() or ["", ""]
        users = [user for user in users if user != _name(v.run, work)]
        pf = pci.look(v.pf)
        if pf is not None and "autoprobe" in facts:
            pci.set_autoprobe(v.pf, facts["autoprobe"])
        if users:
            files.write(path, "\n".join((made, was, *users)))
        else:
            if pf is not None:
                _restore_functions(pf, was.split(","), v.run, work, made=made == "1")
            files.remove(path)
    shared.tidy()
    yield


def _restore_functions(pf: Device, was: list[str], run: str, work: Work, *, made: bool) -> None:
    """Remove the VFs of a physical function if they were made, and set it down if it was.

    Unless somebody has come to use one, or it, meanwhile: then that is left, and said.
    """
    used = _used_functions(pf, run, work, made=made)
    if made and used:
        work.say(f"the virtual functions of {pf.bdf} are left: {', '.join(used)}")
    elif made and pf.vfs:
        pci.set_vf_count(pf.bdf, 0)
    up, *had = was
    if up != "0" or not pf.ifnames or not interface_state.is_up(pf.ifnames[0]):
        return
    new = [each for each in _carried(pf.ifnames[0]) if each not in had]
    if new:
        work.say(f"{pf.ifnames[0]} is left up: it has {', '.join(new)} now")
    elif used:
        work.say(f"{pf.ifnames[0]} is left up: {', '.join(used)}")
    else:
        interface_state.set_up(pf.ifnames[0], up=False)


def _carried(ifname: str) -> tuple[str, ...]:
    """Return the addresses that an interface was given, and the interfaces that stand on it."""
    return (*interface_state.given(ifname), *sorted(interface_state.uppers(ifname) - {ifname}))


def _used_functions(pf: Device, run: str, work: Work, *, made: bool) -> list[str]:
    """Return which virtual functions of PF somebody uses, each with who that is.

    Raises `HostError` for one that was MADE and that RUN has still, or a process on and on.
    """
    found = []
    for device in [look(pf.bdf, bdf) for bdf in pf.vfs]:
        if made and device.is_on_vfio:
            pci.wait_group_closed(device.group)  # or the write to sriov_numvfs never returns
        if made and Shared(work.state).claimant(device.bdf) == (work.state, run):
            raise HostError(f"{device} has not been given back", "run qemu-netwrap gc")
        is_bound = made and os.path.exists(Shared(work.state).bound(device.bdf))
        user = user_of(device, work) or ("qemu-netwrap vfio bind" if is_bound else "")
        found += [f"{device.bdf} is in use by {user}"] if user else []
    return found


def acquire_settings(s: r.VfSettings, note: Note, _work: Work) -> Iterator[None]:
    """Set a VF through its physical function; how it was is written down first."""
    pf = look(s.pf, s.pf)
    wanted = linux.netlink.vf_settings.Vf(s.mac, s.vlan, "", s.spoofchk, s.trust, s.max_tx_rate)
    before = linux.netlink.vf_settings.read_vf(pf.ifnames[0], s.number)
    kept = before.kept_with(wanted)
    note(**{key: value for key, value in kept.__dict__.items() if value})
    if wanted.max_tx_rate and int(before.min_tx_rate or 0) <= int(wanted.max_tx_rate):
        wanted = wanted.replace(min_tx_rate=before.min_tx_rate)
    linux.netlink.vf_settings.set_vf(pf.ifnames[0], s.number, wanted)
    yield


def release_settings(s: r.VfSettings, facts: Facts, work: Work) -> Iterator[None]:
    """Set a VF as it was. Not every driver takes back that it has no MAC: then it keeps ours."""
    pf = pci.look(s.pf)
    if facts and pf is not None and pf.ifnames and s.number < len(pf.vfs):
        before = linux.netlink.vf_settings.Vf(**facts).missing_in(
            linux.netlink.vf_settings.read_vf(pf.ifnames[0], s.number)
        )
        linux.netlink.vf_settings.set_vf(pf.ifnames[0], s.number, before.replace(mac=""))
        try:
            linux.netlink.vf_settings.set_vf(
                pf.ifnames[0], s.number, linux.netlink.vf_settings.Vf(before.mac)
            )
        except HostError as error:
            if before.mac.strip("0:"):
                raise
            work.say(error.message)
    yield


def acquire_node(n: r.GroupNode, note: Note, _work: Work) -> Iterator[None]:
    """Hand an IOMMU group's node to the user that QEMU runs as."""
    node = pci.group_node(n.group)
    found = os.stat(node)
    note(owner=f"{found.st_uid}:{found.st_gid}")
    os.chown(node, n.uid, found.st_gid)
    yield


def release_node(n: r.GroupNode, facts: Facts, _work: Work) -> Iterator[None]:
    """Give the node back to whom it was; it goes with the group's last device on vfio-pci."""
    node = pci.group_node(n.group)
    uid, _, gid = facts.get("owner", "").partition(":")
    try:
        if uid and os.stat(node).st_uid == n.uid:
            os.chown(node, int(uid), int(gid))
    except FileNotFoundError:
        pass
    yield


def _name(run: str, work: Work) -> str:
    """Return a run's name that no other network namespace has."""
    return f"{work.state.base}:{run}"


ACQUIRE: dict[type[r.Resource], Callable[..., Iterator[None]]] = {
    r.PciBinding: acquire_binding,
    r.VirtualFunctions: acquire_functions,
    r.VfSettings: acquire_settings,
    r.GroupNode: acquire_node,
}
RELEASE: dict[type[r.Resource], Callable[..., Iterator[None]]] = {
    r.PciBinding: release_binding,
    r.VirtualFunctions: release_functions,
    r.VfSettings: release_settings,
    r.GroupNode: release_node,
}
