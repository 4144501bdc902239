"""Assignment of the host's devices to a run: checks first, then acquisition.

How a device is acquired and released is in `resources.vfio`.
"""

from __future__ import annotations

import os
import resource

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, pci, session
from qemu_netwrap.linux.netlink import interface_state
from qemu_netwrap.linux.netlink.links import Rtnl
from qemu_netwrap.model import mac
from qemu_netwrap.model.numbers import parse_uint32
from qemu_netwrap.model.run import DeviceInfo
from qemu_netwrap.passthrough import devices as planning
from qemu_netwrap.pci_state import PciState
from qemu_netwrap.qemu.sriov_options import settings
from qemu_netwrap.record import Record
from qemu_netwrap.resources import vfio
from qemu_netwrap.resources.dhcp_hosts import DhcpHost
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.resources.vfio import IommuGroupOwner, SriovFunctions, VfioBinding, VfSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qemu_netwrap.model.pci import Device
    from qemu_netwrap.passthrough.devices import HostDevice
    from qemu_netwrap.qemu.network_options import NetworkOptions
    from qemu_netwrap.qemu.rewrite import Rewritten
    from qemu_netwrap.resources.base import Context, Resource
    from qemu_netwrap.state import StateDir

    # Acquires resources in order, and records each in the journal first.
    AcquireAll = Callable[[Iterable[Resource], Journal, Context], None]
    # Releases what dead runs still hold.
    ReleaseDeadRuns = Callable[[StateDir], object]

MOST_MADE = 8  # VFs created for a run that needs no more of them: some cards have hundreds
_MAC_ATTEMPTS = 1 << 16


class PassthroughPlan(Record):
    """What a run passes through, and how: the keeper's instructions."""

    wanted: tuple[HostDevice, ...]
    bind_group: bool = False
    uid: int = 0  # owner of the IOMMU groups' nodes; 0: no change
    mac_key: tuple[str, ...] = ()  # what MACs of VFs are derived from
    locked: int = 0  # bytes of memory that QEMU has to lock if it does not run as root
    force_uplink: bool = False
    # The host's address in the user's SSH session, of which the keeper is not a part; else empty.
    session: str = ""


def look(
    reading: NetworkOptions,
    mac_key: tuple[str, ...] = (),
    *,
    run_as: str,
    bind_group: bool,
    force_uplink: bool,
) -> PassthroughPlan | None:
    """Return what a launch passes through, checked as far as is known now; None for nothing.

    Also None if the caller is not root and the devices are already on vfio-pci. Nothing is
    changed. RUN_AS is the user that QEMU will run as, empty for the caller; BIND_GROUP and
    FORCE_UPLINK are the options of these names. Raises `NetwrapError` for what cannot be passed
    through.
    """
    found = []
    for want in planning.find(reading):
        host = want.host or (pci.by_path(want.path) if want.path else "")
        if host or want.net is not None:
            found.append(want.replace(host=host))
    if not found or (os.geteuid() != 0 and all(map(_is_prepared, found))):
        return None
    if os.geteuid() != 0:
        raise HostError(
            f"{found[0].label}: taking a device of the host from its driver is root's",
            'sudo qemu-netwrap --run-as "$USER" -- qemu-system-x86_64 ...; or have it bound:'
            " sudo qemu-netwrap vfio bind BDF",
        )
    planning.check_host(has_iommu=pci.has_iommu(), remaps_interrupts=pci.remaps_interrupts())
    uid = _uid(run_as)
    locked = planning.memory_to_lock(reading, len(found)) if uid else 0
    passing = PassthroughPlan(
        tuple(found),
        bind_group,
        uid,
        mac_key,
        locked,
        force_uplink,
        session.server_address(),
    )
    _check_all(passing)
    return passing


def _check_all(passing: PassthroughPlan) -> dict[str, str]:
    """Raise `HostError` if something cannot be passed through.

    Return what each interface carries by which the host is reached. For a `sriov` only the physical
    function is checked, since the virtual function is chosen later.
    """
    reached_by = {} if passing.force_uplink else _reached(passing.session)
    _check_named(passing)
    for want in passing.wanted:
        if want.net is not None:
            _physical(want)
        else:
            _check(want, _device(want), passing, reached_by)
    return reached_by


def _check_named(passing: PassthroughPlan) -> None:
    """Raise `HostError` if a virtual function is named twice, at least once by its number.

    QEMU itself refuses an address that is typed twice.
    """
    named: dict[str, HostDevice] = {}
    for want in passing.wanted:
        name = want.host
        if _chosen(want) >= 0:
            vfs = _physical(want).vfs[_chosen(want) :]
            name = vfs[0] if vfs else f"{want.pf} {_chosen(want)}"
        other = named.setdefault(name, want) if name else want
        if other is not want and (want.net is not None or other.net is not None):
            raise HostError(
                f"{want.label}: {other.label} has that virtual function",
                "give each its own vf=, or none: then the first that is free is taken",
            )


def _check(
    want: HostDevice, device: Device, passing: PassthroughPlan, reached_by: dict[str, str]
) -> tuple[Device, ...]:
    """Raise `HostError` unless a device and all that must be bound with it are free.

    Return these others.
    """
    others = _siblings(want.label, device, passing)
    for each in (device, *others):
        check_use(want.label, each, reached_by)
    return others


def check_use(label: str, device: Device, reached_by: dict[str, str]) -> None:
    """Raise `HostError` if a device is in use, or one of its interfaces is in REACHED_BY."""
    use = planning.Use(
        vfio.holder(device),
        frozenset().union(*map(interface_state.uppers, device.ifnames)),
        tuple(name for ifname in device.ifnames for name in interface_state.dependents(ifname)),
    )
    planning.check_device(label, device, use, reached_by)
    disk, remedy = pci.disk_in_use(device.bdf)
    if disk:
        raise HostError(f"{label}: {device} is in use by the host: {disk}", remedy)


def acquire(
    passing: PassthroughPlan,
    run: str,
    work: Context,
    *,
    acquire_all: AcquireAll,
    release_dead_runs: ReleaseDeadRuns,
) -> Iterator[DeviceInfo]:
    """Acquire what a run passes through, and yield it in the order typed.

    Raises `NetwrapError`; what has been acquired by then is in the run's journal.
    """
    _await_release(passing, work, release_dead_runs)
    # Check again: the host may now be reached by a device that was just given back.
    taking = _Assignment(run, work, passing, _check_all(passing), acquire_all)
    found = {}
    # Functions that are named come first: otherwise one that may be any could take them.
    for number, want in sorted(enumerate(passing.wanted), key=lambda each: _is_any(each[1])):
        found[number] = _acquire(want, (*passing.mac_key, "vf", str(number)), taking)
    yield from (found[number] for number in range(len(found)))


def _acquire(want: HostDevice, key: tuple[str, ...], taking: _Assignment) -> DeviceInfo:
    """Acquire one device, and what must be bound with it; a VF's MAC is derived from KEY."""
    device = _physical(want) if want.net is not None else _device(want)
    with PciState(taking.work.state).lock(device):
        # Read it again: another run may have changed it before the lock was taken.
        device = vfio.look(want.label, device.bdf)
        if want.net is not None:
            device = _take_function(want, device, taking)
        others = taking.check(want, device)
        if device.pf:
            taking.use(vfio.look(want.label, device.pf), 0)
        for each in (device, *others):
            taking.acquire(VfioBinding(each.bdf, taking.run, each.driver))
        given = _set_function(want, device, key, taking) if device.pf else ""
    if taking.passing.uid:
        taking.acquire(IommuGroupOwner(device.group, taking.passing.uid))
    return DeviceInfo(want.label, device.bdf, _pf_name(device), given)


def _await_release(
    passing: PassthroughPlan, work: Context, release_dead_runs: ReleaseDeadRuns
) -> None:
    """Have dead runs give back what is wanted, and wait for runs that are doing so."""
    release_dead_runs(work.state)
    ended = [vfio.await_ending(bdf, work) for want in passing.wanted for bdf in _needed(want, work)]
    if any(ended):
        release_dead_runs(work.state)  # a keeper may have failed to release its run


def _needed(want: HostDevice, work: Context) -> tuple[str, ...]:
    """Return the addresses of devices that a run cannot do without; none while a VF is free."""
    if want.net is None:
        device = _device(want)
        return (device.bdf, *(member.bdf for member in pci.members(device.group)))
    vfs, chosen = _physical(want).vfs, _chosen(want)
    if chosen >= 0:
        return vfs[chosen : chosen + 1]
    found = [device for device in map(pci.look, vfs) if device is not None]
    return vfs if all(vfio.user_of(device, work) for device in found) else ()


def foresee(passing: PassthroughPlan, run: str) -> tuple[list[Resource], tuple[str, ...]]:
    """Return what a run would acquire, and the addresses; a VF that is not chosen yet is named."""
    found: list[Resource] = []
    chosen = []
    for number, want in enumerate(passing.wanted):
        if want.net is None:
            device = _device(want)
            others = _siblings(want.label, device, passing)
            found += [VfioBinding(each.bdf, run, each.driver) for each in (device, *others)]
            chosen.append(device.bdf)
            group = device.group
        else:
            pf = _physical(want)
            own = want.mac or mac.derive(*passing.mac_key, "vf", str(number))
            vf = f"<VF of {want.pf}>" if _chosen(want) < 0 else f"<VF {_chosen(want)} of {want.pf}>"
            chosen.append(vf)
            use = SriovFunctions(pf.bdf, run, _to_make(passing, pf), want.pf)
            where = {"ifname": want.pf, **settings(want.net.opts)}
            found += [] if use in found else [use]
            found += [
                VfioBinding(vf, run),
                VfSettings(pf.bdf, max(0, _chosen(want)), own, **where),
            ]
            group = "GROUP"
        found += [IommuGroupOwner(group, passing.uid)] if passing.uid else []
    return found, tuple(chosen)


class _Assignment:
    """A run that is acquiring devices."""

    def __init__(
        self,
        run: str,
        work: Context,
        passing: PassthroughPlan,
        reached_by: dict[str, str],
        acquire_all: AcquireAll,
    ) -> None:
        """What RUN acquires by ACQUIRE_ALL goes into its journal."""
        self.run = run
        self.work = work
        self.passing = passing
        self._reached_by = reached_by
        self._acquire_all = acquire_all
        self.journal = Journal(f"{work.state.run(run)}/journal")
        self._used: set[str] = set()

    def check(self, want: HostDevice, device: Device) -> tuple[Device, ...]:
        """Raise `HostError` unless a device and all that must be bound with it are free.

        Return these others.
        """
        others = _check(want, device, self.passing, self._reached_by)
        for each in (device, *others):
            vfio.check_free(want.label, each, self.run, self.work)
        return others

    def use(self, pf: Device, count: int) -> None:
        """Become a user of PF, and create COUNT VFs if it has none. Raises `NetwrapError`.

        This is done once, and before any of its VFs is bound, so that it is released last. A PF
        without an interface cannot be set, and nothing is created.
        """
        if pf.ifnames and pf.bdf not in self._used:
            self._used.add(pf.bdf)
            self.acquire(SriovFunctions(pf.bdf, self.run, count, pf.ifnames[0]))

    def acquire(self, resource: Resource) -> None:
        """Acquire a resource. Raises `NetwrapError`."""
        self._acquire_all([resource], self.journal, self.work)


def become(passing: PassthroughPlan, rewritten: Rewritten, chosen: tuple[str, ...]) -> Rewritten:
    """Return QEMU's options with the CHOSEN addresses, and raise this process's memlock limit.

    This process becomes QEMU, which locks the guest's RAM. Root may do that (CAP_IPC_LOCK); another
    user needs the limit.
    """
    if passing.uid:
        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if soft != resource.RLIM_INFINITY and soft < passing.locked:
            hard = hard if hard == resource.RLIM_INFINITY else max(hard, passing.locked)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (passing.locked, hard))
    return planning.replace_options(rewritten, passing.wanted, chosen)


def _take_function(want: HostDevice, pf: Device, taking: _Assignment) -> Device:
    """Return a free VF of PF, whose lock the caller holds; VFs are created if there are none."""
    chosen = _chosen(want)
    if not pf.vfs:
        taking.use(pf, _to_make(taking.passing, pf))
        pf = vfio.look(want.label, pf.bdf)
    if chosen >= len(pf.vfs):
        raise HostError(
            f"{want.label}: {want.pf} has {len(pf.vfs)} virtual functions now, so no vf={chosen}",
            "their number changes only while none is in use: see qemu-netwrap vfio list",
        )
    used = []
    for number, bdf in enumerate(pf.vfs):
        if chosen in (-1, number):
            device = vfio.look(want.label, bdf)
            user = vfio.user_of(device, taking.work)
            if not user:
                return device
            used.append(f"{number} by {user}")
    raise HostError(
        f"{want.label}: no virtual function of {want.pf} is free: {', '.join(used)}",
        "end one of those; see qemu-netwrap vfio list",
    )


def _set_function(
    want: HostDevice, device: Device, key: tuple[str, ...], taking: _Assignment
) -> str:
    """Set a VF through its physical function; return the MAC that it was given.

    A VF that was named by its address keeps its MAC. Otherwise, without a MAC of the user's, it is
    derived from KEY. Empty if none was set.
    """
    pf = vfio.look(want.label, device.pf)
    if not pf.ifnames:
        return ""  # no interface to set it by: the guest's driver chooses a MAC
    ifname = pf.ifnames[0]
    number = pf.vfs.index(device.bdf)
    if want.net is None:
        try:
            has_mac = bool(linux.netlink.vf_settings.read_vf(ifname, number).mac.strip("0:"))
        except HostError:
            return ""  # its driver does not report it
        if has_mac:
            return ""
    wanted = settings(want.net.opts) if want.net is not None else {}
    own = _take_mac(want, ifname, key, taking)
    taking.acquire(VfSettings(pf.bdf, number, own, **wanted, ifname=ifname))
    return own


def _take_mac(want: HostDevice, ifname: str, key: tuple[str, ...], taking: _Assignment) -> str:
    """Reserve a MAC: the user's, or one derived from KEY that no living run has."""
    state = taking.work.state
    with files.Lock(state.macs_lock):
        for attempt in range(_MAC_ATTEMPTS):
            own = want.mac or mac.derive(*key, attempt=attempt)
            holder, where = state.mac_holder(own)
            if want.mac and holder and where == ifname:
                taking.work.say(f"{want.label}: MAC {own} is in use by run {holder} on {ifname}")
            if want.mac or not holder:
                taking.acquire(DhcpHost(ifname, taking.run, own, ""))
                return own
    raise HostError(f"{want.label}: no free MAC found", "give it a mac= of its own")


def _pf_name(device: Device) -> str:
    """Return the interface, or else the address, of a VF's physical function; else empty."""
    return next(iter(pci.ifnames(device.pf)), device.pf) if device.pf else ""


def _is_prepared(want: HostDevice) -> bool:
    """Whether a device is on vfio-pci already, so that QEMU can use it by itself."""
    device = pci.look(want.host) if want.net is None else None
    return device is not None and device.is_on_vfio


def _to_make(passing: PassthroughPlan, pf: Device) -> int:
    """Return how many VFs of PF are to be created for a run; 0 if it has some."""
    if pf.vfs:
        return 0
    wants = [want for want in passing.wanted if want.pf in pf.ifnames]
    return min(pf.total_vfs, max(MOST_MADE, len(wants), *(_chosen(want) + 1 for want in wants)))


def _is_any(want: HostDevice) -> bool:
    """Whether any free VF of a PF is wanted."""
    return want.net is not None and _chosen(want) < 0


def _chosen(want: HostDevice) -> int:
    """Return the number of the VF that is wanted (`vf=`); -1 for any."""
    if want.net is None or not want.net.has("vf"):
        return -1
    return parse_uint32(want.net.value("vf")) or 0


def _device(want: HostDevice) -> Device:
    """Return the device that is named by its address. Raises `HostError` if there is none."""
    return vfio.look(want.label, want.host)


def _physical(want: HostDevice) -> Device:
    """Return the physical function of a `sriov`. Raises `HostError` if it has no such VFs."""
    bdf = pci.by_ifname(want.pf)
    if not os.path.exists(f"{pci.SYS}/class/net/{want.pf}"):
        raise HostError(f"{want.label}: there is no interface {want.pf}", "see ip link")
    device = pci.look(bdf) if bdf else None
    if device is None or not device.total_vfs:
        raise HostError(
            f"{want.label}: {want.pf} has no virtual functions: {device or 'it is no PCI device'}",
            "SR-IOV must be in the card, and switched on in its firmware; see qemu-netwrap vfio"
            " list",
        )
    if _chosen(want) >= device.total_vfs:
        raise HostError(
            f"{want.label}: {want.pf} has {device.total_vfs} virtual functions at most",
            f"vf= is from 0 to {device.total_vfs - 1}",
        )
    return device


def _siblings(label: str, device: Device, passing: PassthroughPlan) -> tuple[Device, ...]:
    """Return the devices of a device's IOMMU group that must be bound with it.

    Never a VF's physical function, since that would remove the VF. Raises `HostError`.
    """
    members = pci.members(device.group) if device.group else []
    for member in members:
        if member.bdf == device.pf and member.is_in_the_way:
            raise HostError(
                f"{label}: IOMMU group {device.group} is not viable: {device.bdf} shares it with"
                f" {member}, its own physical function",
                "that must keep its driver; a slot with ACS keeps the two apart",
            )
    passed = {device.bdf, *(want.host for want in passing.wanted if want.host)}
    return planning.siblings(label, device, members, passed, bind_group=passing.bind_group)


def _uid(user: str) -> int:
    """Return the uid that QEMU will run as; 0 if no user is named."""
    return linux.users.uid_of(user) if user else 0


def reached() -> dict[str, str]:
    """Return what each interface carries by which the host is reached, by name."""
    return _reached(session.server_address())


def _reached(address: str) -> dict[str, str]:
    """Return the same for an SSH session to ADDRESS of this host; empty for no session."""
    rtnl = Rtnl()
    try:
        device = rtnl.default_device()
    finally:
        rtnl.close()
    devices = {device, *session.default_devices()} - {""}
    found = dict.fromkeys(devices, "the host's default route")
    ifname = interface_state.with_address(address) if address else ""
    if ifname:
        found[ifname] = "the SSH session that you are in"
    return found
