"""Passthrough of the host's PCI devices: drivers, virtual functions, nodes of IOMMU groups.

The caller of `acquire` holds the device's lock (`PciState.lock`); `release` takes it where several
runs share something.
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

_PROBE_TIMEOUT = 1.0  # seconds in which a process that only checks has the group open
_PROBE = "/sys/bus/pci/drivers_probe"


class VfioBinding(Resource):
    """A PCI device that a run has for itself, unbound from its driver and bound to vfio-pci."""

    kind = "PciBinding"

    bdf: str
    run: str
    driver: str = ""  # its driver at the time of planning

    def acquire(self, context: Context) -> Iterator[None]:
        """Claim the device and bind it to vfio-pci; its former state is noted first."""
        with PciState(context.state).driver_lock(self.bdf):
            _take(self, context)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Bind the device to its driver again, with its former override and interfaces.

        A device that another run has claimed since is left alone: the SAVED facts are outdated.
        """
        shared = PciState(context.state)
        # Wait for what the child of a killed keeper may still be writing.
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
    """Do what `VfioBinding.acquire` does, with the driver's lock held.

    It checks again: two runs that want one group have each held their own device's lock only.
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
    """Restore a device's driver, override and interfaces from SAVED. Raises `HostError`."""
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
    """A run's use of a physical function (PF): the first use creates its VFs and brings it up."""

    kind = "VirtualFunctions"

    pf: str  # its PCI address
    run: str
    count: int  # how many VFs to create if there are none; 0: they exist
    ifname: str = ""  # its interface at the time of planning

    def acquire(self, context: Context) -> Iterator[None]:
        """Record that the run uses the PF; create VFs if there are none, and bring the PF up."""
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
            # While the PF is down, a VF has no carrier, and some get no MAC.
            context.say(f"{pf.ifnames[0]} was down: brought up for its virtual functions")
            linux.netlink.interface_state.set_up(pf.ifnames[0], up=True)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """End the run's use; the last one removes created VFs, and sets the PF down if it was."""
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
    """Return a PF's users; `former` holds whether its VFs were created, and its former state."""
    found = Uses.read_changed(path)
    if len(found.former) != 1:
        return found
    (was, _), *users = found.users  # an older version wrote this on a line of its own
    return Uses((*found.former, was), tuple(users))


def _restore_functions(
    pf: Device, was: list[str], run: str, context: Context, *, made: bool
) -> None:
    """Remove the VFs of a PF if they were MADE, and set the PF down if it was down.

    What another program has come to use is left as it is, with a message.
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
    """Return the addresses that an interface was given, and the interfaces on top of it."""
    state = linux.netlink.interface_state
    return (*state.given(ifname), *sorted(state.uppers(ifname) - {ifname}))


def _used_functions(pf: Device, run: str, context: Context, *, made: bool) -> list[str]:
    """Return a line for each VF of PF that is in use, naming the user.

    Raises `HostError` if the VFs were MADE and RUN still has one, or a process keeps one open.
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
    """Settings of a virtual function, made through its PF. An empty one is not changed."""

    kind = "VfSettings"

    pf: str  # its PCI address
    number: int
    mac: str = ""
    vlan: str = ""
    spoofchk: str = ""
    trust: str = ""
    max_tx_rate: str = ""
    ifname: str = ""  # the PF's interface at the time of planning

    def acquire(self, context: Context) -> Iterator[None]:
        """Set a VF through its physical function; its former settings are noted first."""
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
        """Restore the VF's settings. Some drivers cannot unset a MAC: then the one set stays."""
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
        """Restore the node's owner; the node vanishes with the group's last vfio-pci device."""
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
    """Return a run's name made unique across network namespaces."""
    return f"{context.state.base}:{run}"


def look(label: str, bdf: str) -> Device:
    """Return a device as sysfs shows it. Raises `HostError` if there is none."""
    device = linux.pci.look(bdf)
    if device is None:
        raise HostError(f"{label}: there is no PCI device {bdf}", "see lspci -D")
    return device


def other_run(bdf: str, run: str, context: Context) -> str:
    """Return the run that has claimed a device, as a message names it; empty if none has.

    The claim of a dead run counts until it is released.
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
    """Raise `HostError` if a run other than RUN has the device."""
    user = other_run(device.bdf, run, context)
    if user:
        raise HostError(f"{label}: {device} is in use by {user}", "see qemu-netwrap vfio list")


def _others_claim(bdf: str, run: str, context: Context) -> tuple[StateDir, str] | None:
    """Return (state, run) of the claim to a device; None if there is none, or it is RUN's.

    A claim by `vfio bind` is the same in every network namespace.
    """
    found = PciState(context.state).claimant(bdf)
    if found is None or found == (context.state, run) or found[1] == run == MANUAL:
        return None
    return found


def await_ending(bdf: str, context: Context) -> bool:
    """Wait, up to `DRIVER_TIMEOUT`, for an ended run whose keeper is releasing a device.

    Return whether there was such a run.
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
    """Whether a run's keeper lives, and no other process has the run's lock: its QEMU is gone.

    It checks which processes have the lock open, since the keeper locks it once QEMU is gone.
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

    Another qemu-netwrap that only checks has it open for a moment too: that is waited for.
    """
    if not is_open(device):
        return ""
    by = linux.pci.group_holder(device.group)
    if not by:
        linux.polling.wait_until(lambda: not is_open(device), _PROBE_TIMEOUT)
    return by or ("a process" if is_open(device) else "")


def user_of(device: Device, context: Context) -> str:
    """Return the user of a VF, as a message names it; empty if it seems to be unused."""
    user = other_run(device.bdf, "", context)
    if user:
        return user
    by = holder(device)
    if by or device.is_on_vfio or not device.driver:
        return by
    # A VF on a driver of the host whose interface is not here belongs to a container.
    if device.ifnames and all(map(linux.netlink.interface_state.is_idle, device.ifnames)):
        return ""
    return f"the host ({', '.join((device.driver, *device.ifnames))})"
