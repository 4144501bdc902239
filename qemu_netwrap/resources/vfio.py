"""Passing devices of the host through: drivers, virtual functions, group nodes.

Acquiring is done with the device's lock held (`Shared.lock`); releasing takes it where several runs
share something.
"""

from __future__ import annotations

import os

from qemu_netwrap import linux, record_text
from qemu_netwrap.errors import HostError
from qemu_netwrap.model.pci import VFIO
from qemu_netwrap.pci_state import MANUAL, PciState
from qemu_netwrap.resources.base import Commands, Resource
from qemu_netwrap.uses import Uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.pci import Device
    from qemu_netwrap.resources.base import Context, Saved
    from qemu_netwrap.state import StateDir

_PROBE_TIMEOUT = 1.0  # seconds: another process that only looks has the group open
_PROBE = "/sys/bus/pci/drivers_probe"


class VfioBinding(Resource):
    """A PCI device that a run has for its own, taken from its driver and given to vfio-pci."""

    kind = "PciBinding"

    bdf: str
    run: str
    driver: str = ""  # its driver when that was planned

    def acquire(self, context: Context) -> Iterator[None]:
        """Claim a device and give it to vfio-pci; what it was is written down first."""
        with PciState(context.state).driver_lock(self.bdf):
            _take(self, context)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Give a device back to its driver, with its override and its interfaces as they were.

        One that somebody else has come to have is his: what this one wrote down is of before.
        """
        shared = PciState(context.state)
        # What a killed keeper's child is still writing comes first.
        with shared.driver_lock(self.bdf):
            if _others_claim(self.bdf, self.run, context) is None:
                device = linux.pci.look(self.bdf)
                if device is not None and "driver" in saved:
                    _give_back(device, saved)
                linux.files.remove(shared.claim(self.bdf))
            linux.files.remove_scratch(f"{shared.base}/claims", self.bdf)
        shared.tidy()
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        device = f"/sys/bus/pci/devices/{self.bdf}"
        if "vfio" in self.driver:
            there = f"# {self.bdf} is on {self.driver} already"
            return Commands((there,), (f"# {self.bdf} is left there",))
        leave, probe = f"echo {self.bdf} >{device}/driver/unbind", f"echo {self.bdf} >{_PROBE}"
        take = f"echo vfio-pci >{device}/driver_override"
        give = f"echo >{device}/driver_override  # or what it was"
        if not self.driver:
            return Commands((take, probe), (leave, give))
        back = f"{probe}  # {self.driver} takes it; its interface is made what it was"
        return Commands((take, leave, probe), (leave, give, back))


def _take(b: VfioBinding, context: Context) -> None:
    """Do what `VfioBinding.acquire` does, with the lock held.

    Of two runs that want one group each has looked with the lock of its own device only.
    """
    device = look(b.bdf, b.bdf)
    check_free(b.bdf, device, b.run, context)
    linux.pci.load(VFIO)
    state = linux.netlink.interface_state
    links = {f"link{number}": state.save(name) for number, name in enumerate(device.ifnames)}
    context.remember(driver=device.driver, override=device.override, **links)
    linux.files.write(PciState(context.state).claim(b.bdf), f"{context.state.base} {b.run}", 0o644)
    if not device.is_on_vfio:
        linux.pci.unbind(b.bdf)
        linux.pci.bind(b.bdf, VFIO)


def _give_back(device: Device, saved: Saved) -> None:
    """Make a device what is SAVED of it, if it is not. Raises `HostError`."""
    state = linux.netlink.interface_state
    bdf, before = device.bdf, saved["driver"]
    if device.driver == VFIO != before:
        linux.pci.wait_group_closed(device.group)
        linux.pci.unbind(bdf)
    if before and linux.pci.driver(bdf) != before:
        linux.pci.bind(bdf, before)
    if linux.pci.override(bdf) != saved["override"]:
        linux.pci.set_override(bdf, saved["override"])
    lines = [value for key, value in saved.items() if key.startswith("link")]
    names = state.wait_interfaces(lambda: linux.pci.ifnames(bdf), len(lines))
    if len(names) < len(lines):
        lost = ", ".join(record_text.read(line)[0] for line in lines[len(names) :])
        raise HostError(
            f"{bdf}: driver {before} has it again, and makes no interface {lost}",
            "the kernel's log says more: dmesg",
        )
    for name, line in zip(names, lines, strict=False):
        state.restore(name, line)


class SriovFunctions(Resource):
    """A run's use of a physical function: the first makes its VFs and brings it up if need be."""

    kind = "VirtualFunctions"

    pf: str  # its PCI address
    run: str
    count: int  # how many to make if there are none; 0: they are there
    ifname: str = ""  # its interface when that was planned

    def acquire(self, context: Context) -> Iterator[None]:
        """Use a physical function: make its VFs if there are none, and bring it up if need be."""
        path = PciState(context.state).functions(self.pf)
        pf = look(self.pf, self.pf)
        known = _uses(path)
        up = linux.netlink.interface_state.is_up(pf.ifnames[0])
        if not known.former:
            was = ",".join((str(int(up)), *_carried(pf.ifnames[0])))
            known = Uses((str(int(not pf.vfs)), was))
        known.with_use(_name(self.run, context)).write(path)
        if self.count and not pf.vfs:
            context.remember(autoprobe=linux.pci.autoprobe(self.pf))
            linux.pci.set_vf_count(self.pf, self.count)
        if not up:
            # Without it a VF has no carrier, and some get no MAC.
            context.say(f"{pf.ifnames[0]} was down: brought up for its virtual functions")
            linux.netlink.interface_state.set_up(pf.ifnames[0], up=True)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Leave a physical function; the last one removes the VFs that we made, sets it down."""
        shared = PciState(context.state)
        with shared.lock_of(self.pf):
            path = shared.functions(self.pf)
            linux.files.remove_scratch(f"{shared.base}/functions", self.pf)
            left = _uses(path).without(_name(self.run, context))
            made, was = left.former or ("", "")
            pf = linux.pci.look(self.pf)
            if pf is not None and "autoprobe" in saved:
                linux.pci.set_autoprobe(self.pf, saved["autoprobe"])
            if pf is not None and not left.users:
                _restore_functions(pf, was.split(","), self.run, context, made=made == "1")
            left.keep(path)
        shared.tidy()
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        count = f"/sys/bus/pci/devices/{self.pf}/sriov_numvfs"
        up = f"ip link set {self.ifname} up"
        down = f"ip link set {self.ifname} down  # if it was, with the last run"
        if not self.count:
            return Commands((up,), (down,))
        undo = (f"echo 0 >{count}  # with the last run", down)
        return Commands((f"echo {self.count} >{count}", up), undo)


def _uses(path: str) -> Uses:
    """Return who uses a physical function; before that, if its VFs were made, and what it was."""
    found = Uses.read_changed(path)
    if len(found.former) != 1:
        return found
    (was, _), *users = found.users  # an older version has written this on a line of its own
    return Uses((*found.former, was), tuple(users))


def _restore_functions(
    pf: Device, was: list[str], run: str, context: Context, *, made: bool
) -> None:
    """Remove the VFs of a physical function if they were made, and set it down if it was.

    Unless somebody has come to use one, or it, meanwhile: then that is left, and said.
    """
    used = _used_functions(pf, run, context, made=made)
    if made and used:
        context.say(f"the virtual functions of {pf.bdf} are left: {', '.join(used)}")
    elif made and pf.vfs:
        linux.pci.set_vf_count(pf.bdf, 0)
    up, *had = was
    if up != "0" or not pf.ifnames or not linux.netlink.interface_state.is_up(pf.ifnames[0]):
        return
    new = [each for each in _carried(pf.ifnames[0]) if each not in had]
    if new:
        context.say(f"{pf.ifnames[0]} is left up: it has {', '.join(new)} now")
    elif used:
        context.say(f"{pf.ifnames[0]} is left up: {', '.join(used)}")
    else:
        linux.netlink.interface_state.set_up(pf.ifnames[0], up=False)


def _carried(ifname: str) -> tuple[str, ...]:
    """Return the addresses that an interface was given, and the interfaces that stand on it."""
    state = linux.netlink.interface_state
    return (*state.given(ifname), *sorted(state.uppers(ifname) - {ifname}))


def _used_functions(pf: Device, run: str, context: Context, *, made: bool) -> list[str]:
    """Return which virtual functions of PF somebody uses, each with who that is.

    Raises `HostError` for one that was MADE and that RUN has still, or a process on and on.
    """
    found = []
    for device in [look(pf.bdf, bdf) for bdf in pf.vfs]:
        if made and device.is_on_vfio:
            linux.pci.wait_group_closed(device.group)  # or the write to sriov_numvfs never returns
        if made and PciState(context.state).claimant(device.bdf) == (context.state, run):
            raise HostError(f"{device} has not been given back", "run qemu-netwrap gc")
        is_bound = made and os.path.exists(PciState(context.state).bound(device.bdf))
        user = user_of(device, context) or ("qemu-netwrap vfio bind" if is_bound else "")
        found += [f"{device.bdf} is in use by {user}"] if user else []
    return found


class VfSettings(Resource):
    """How a virtual function is set through its physical one. What is empty stays as it is."""

    kind = "VfSettings"

    pf: str  # its PCI address
    number: int
    mac: str = ""
    vlan: str = ""
    spoofchk: str = ""
    trust: str = ""
    max_tx_rate: str = ""
    ifname: str = ""  # the physical one's interface when that was planned

    def acquire(self, context: Context) -> Iterator[None]:
        """Set a VF through its physical function; how it was is written down first."""
        pf = look(self.pf, self.pf)
        vfs = linux.netlink.vf_settings
        others = (self.spoofchk, self.trust, self.max_tx_rate)
        wanted = vfs.Vf(self.mac, self.vlan, "", *others)
        before = vfs.read_vf(pf.ifnames[0], self.number)
        kept = before.kept_with(wanted)
        context.remember(**{key: value for key, value in kept.__dict__.items() if value})
        if wanted.max_tx_rate and int(before.min_tx_rate or 0) <= int(wanted.max_tx_rate):
            wanted = wanted.replace(min_tx_rate=before.min_tx_rate)
        vfs.set_vf(pf.ifnames[0], self.number, wanted)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Set a VF as it was. Not every driver takes back that it has no MAC: ours stays then."""
        pf = linux.pci.look(self.pf)
        if saved and pf is not None and pf.ifnames and self.number < len(pf.vfs):
            vfs, which = linux.netlink.vf_settings, (pf.ifnames[0], self.number)
            before = vfs.Vf(**saved).missing_in(vfs.read_vf(*which))
            vfs.set_vf(*which, before.replace(mac=""))
            try:
                vfs.set_vf(*which, vfs.Vf(before.mac))
            except HostError as error:
                if before.mac.strip("0:"):
                    raise
                context.say(error.message)
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        switch = {"0": "off", "1": "on"}
        words = {
            "mac": self.mac,
            "vlan": self.vlan,
            "spoofchk": switch.get(self.spoofchk, ""),
            "trust": switch.get(self.trust, ""),
            "max_tx_rate": self.max_tx_rate,
        }
        where = f"ip link set {self.ifname} vf {self.number}"
        set_ = [key for key in words if words[key]]
        do = " ".join(f"{key} {words[key]}" for key in set_)
        undo = " ".join(f"{key} ..." for key in set_)
        return Commands((f"{where} {do}",), (f"{where} {undo}  # as before",))


class IommuGroupOwner(Resource):
    """The device node of an IOMMU group, handed to the user that QEMU runs as."""

    kind = "GroupNode"

    group: str
    uid: int

    def acquire(self, context: Context) -> Iterator[None]:
        """Hand an IOMMU group's node to the user that QEMU runs as."""
        node = linux.pci.group_node(self.group)
        found = os.stat(node)
        context.remember(owner=f"{found.st_uid}:{found.st_gid}")
        os.chown(node, self.uid, found.st_gid)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Give the node back to whom it was; it goes with the group's last device on vfio-pci."""
        node = linux.pci.group_node(self.group)
        uid, _, gid = saved.get("owner", "").partition(":")
        try:
            if uid and os.stat(node).st_uid == self.uid:
                os.chown(node, int(uid), int(gid))
        except FileNotFoundError:
            pass
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        node = f"/dev/vfio/{self.group}"
        return Commands((f"chown {self.uid} {node}",), (f"chown 0 {node}",))


def _name(run: str, context: Context) -> str:
    """Return a run's name that no other network namespace has."""
    return f"{context.state.base}:{run}"


def look(label: str, bdf: str) -> Device:
    """Return what sysfs tells of a device. Raises `HostError` if there is none."""
    device = linux.pci.look(bdf)
    if device is None:
        raise HostError(f"{label}: there is no PCI device {bdf}", "see lspci -D")
    return device


def other_run(bdf: str, run: str, context: Context) -> str:
    """Return the run that has claimed a device, as a message names it; empty if none has.

    What a dead run has not given back is somebody's to release first.
    """
    found = _others_claim(bdf, run, context)
    if found is None:
        return ""
    state, other = found
    if other == MANUAL:
        return f"qemu-netwrap vfio bind; if that was killed: qemu-netwrap vfio unbind {bdf}"
    dead = "" if state.is_alive(other) else ", which is dead: run qemu-netwrap gc"
    return f"run {other}{dead}"


def check_free(label: str, device: Device, run: str, context: Context) -> None:
    """Raise `HostError` for a device that another run than RUN has."""
    user = other_run(device.bdf, run, context)
    if user:
        raise HostError(f"{label}: {device} is in use by {user}", "see qemu-netwrap vfio list")


def _others_claim(bdf: str, run: str, context: Context) -> tuple[StateDir, str] | None:
    """Return who has claimed a device; None if that is nobody, or RUN itself.

    What `vfio bind` has taken is no network namespace's.
    """
    found = PciState(context.state).claimant(bdf)
    if found is None or found == (context.state, run) or found[1] == run == MANUAL:
        return None
    return found


def await_ending(bdf: str, context: Context) -> bool:
    """Wait a while for a run that is over, and whose keeper just gives a device back.

    Return whether there was one.
    """
    found = PciState(context.state).claimant(bdf)
    if found is None or not _is_ending(*found):
        return False
    state, run = found
    context.say(f"{bdf}: waiting for run {run}, which is giving it back")
    keeper = f"{state.run(run)}/keeper"
    linux.polling.wait_until(lambda: not linux.files.is_locked(keeper), linux.pci.DRIVER_TIMEOUT)
    return True


def _is_ending(state: StateDir, run: str) -> bool:
    """Whether a run's keeper lives, and nobody else has the run's lock: its QEMU is gone.

    Told by who has the lock open, for the keeper locks it when QEMU has let go.
    """
    folder = state.run(run)
    if not linux.files.is_locked(f"{folder}/keeper"):
        return False
    return not linux.run_locks.others(folder)


def is_open(device: Device) -> bool:
    """Whether a process has a device's group open."""
    return bool(device.group) and device.is_on_vfio and linux.pci.is_group_open(device.group)


def holder(device: Device) -> str:
    """Return the process that has a device's group open; empty if none has.

    Another of ours who just looks whether it is open has it so for a moment, too.
    """
    if not is_open(device):
        return ""
    by = linux.pci.group_holder(device.group)
    if not by:
        linux.polling.wait_until(lambda: not is_open(device), _PROBE_TIMEOUT)
    return by or ("a process" if is_open(device) else "")


def user_of(device: Device, context: Context) -> str:
    """Return who uses a VF; empty if nobody seems to."""
    user = other_run(device.bdf, "", context)
    if user:
        return user
    by = holder(device)
    if by or device.is_on_vfio or not device.driver:
        return by
    # One that a driver of this host has, and whose interface is elsewhere, is a container's.
    if device.ifnames and all(map(linux.netlink.interface_state.is_idle, device.ifnames)):
        return ""
    return f"the host ({', '.join((device.driver, *device.ifnames))})"
