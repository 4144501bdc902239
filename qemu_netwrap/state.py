"""Where runs and networks keep their state: a folder for each network namespace.

    ROOT/NAMESPACE/        ROOT is /run/qemu-netwrap, or a user's own folder: realm.root
        runs/RUN/          lock (held by QEMU), keeper (held by the keeper), info, journal;
                           qemu: the process that becomes QEMU, which alone `stop` may end;
                           tap: the tap that shows that a QEMU lives which does not hold the lock;
                           waiter.py and package.zip: the code that releases it
        networks/BRIDGE/   info, journal, members/RUN, members/-kept, dnsmasq's files;
                           names/NAME, addresses/ADDRESS: the runs whose guest has it, and the MAC
        macs/MAC           the runs that use a guest's MAC, and their bridges: the oldest first
        locks/BRIDGE       one lock per network
        locks/-host        taken, after the network's, to create a network or take one down
        locks/-macs        taken, without any other, to choose MACs and to release them
        locks/-takeover    taken to release a run whose own lock another process keeps
        locks/-nft         held by each nft that is started, even when its parent has died
        shared/            what several networks use: its former state and its users (uses)
        code/              the package as archives that runs have hard links to: runtime.kept_code

A run, a bridge or a device may have any name that an interface can have: `model.names.as_file`
spells it as a file's name. A file whose name begins with `-` is never one of these.

PCI devices belong to the machine, not to a network namespace: pci_state has
a folder beside these.

Only root may write here. All users can list the folders and see which networks exist. Only root can
read the files of runs and the locks: a user who can open a lock's file can hold the lock.
"""

from __future__ import annotations

import errno
import os
import stat

from qemu_netwrap import linux, realm, record_text
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, host_facts
from qemu_netwrap.model.names import as_file, of_file
from qemu_netwrap.record import Record
from qemu_netwrap.uses import Uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NEEDS_ROOT = (
    "taps and bridges on the host itself need root:"
    ' sudo qemu-netwrap --run-as "$USER" -- qemu-system-x86_64 ...; -nic user needs no privilege'
)
_ANOTHER = (
    "name a folder of your own that is closed to others, for all commands:"
    ' mkdir -pm 700 "$HOME/.run" && export XDG_RUNTIME_DIR="$HOME/.run"'
)
_FORWARDING = "forwarding-"
_SWITCH = "ipv6-"
_RELAY = "relay-"
_KEPT = "-kept"  # the member by which a network stays up without a run


class LiveTap(Record):
    """The tap that a run lives by: while it exists and, if HELD, a process has it open."""

    index: int
    name: str  # as QEMU knows it
    held: bool


class StateDir(Record):
    """The state folder of one network namespace."""

    base: str

    @classmethod
    def here(cls) -> StateDir:
        """Return the state of the network namespace this process is in."""
        return cls(f"{realm.root()}/{host_facts.namespace()}")

    @classmethod
    def of_folder(cls, folder: str) -> tuple[StateDir, str]:
        """Return the state that contains a run's FOLDER, and the run's name."""
        base, _, file = folder.rpartition("/runs/")
        realm.work_in(base)
        return cls(base), of_file(file)

    @classmethod
    def to_look(cls, command: str, *, looks_out: bool = True) -> StateDir:
        """Return the state of this network namespace for a COMMAND that only reads it.

        Nothing is created. LOOKS_OUT is for `realm.step_in`. Raises `HostError` if there is a root
        folder that is not the user's.
        """
        realm.stay_with_runs()
        if os.path.lexists(realm.root()):
            _check(command)
            if realm.is_users():
                realm.step_in(looks_out=looks_out)
        return cls.here()

    @classmethod
    def to_change(cls, command: str, make: Callable[[realm.Realm], None] | None = None) -> StateDir:
        """Return the state of this network namespace for a COMMAND that changes something.

        The root folder is created if needed. MAKE is for `realm.step_in`, by a command that makes
        networks. Raises `HostError` without the privilege.
        """
        if make is None:
            realm.stay_with_runs()
        _check(command)
        if realm.is_users():
            # A realm that was just made would be tidied away: it has no network yet.
            realm.step_in(make)
            return cls.here()
        state = cls.here()
        state.tidy()
        return state

    @property
    def machine(self) -> str:
        """The path of the folder for what belongs to the machine, not to a network namespace."""
        root, _, name = self.base.rpartition("/")
        return f"{root}/{name.partition('-')[0]}-pci"

    def run(self, run: str) -> str:
        """Return the folder of a run."""
        return f"{self.base}/runs/{as_file(run)}"

    def relay(self, run: str, tap: str) -> str:
        """Return the file of the process that leads ports of the host to a run's NIC."""
        return f"{self.run(run)}/{_RELAY}{as_file(tap)}"

    def relays(self, run: str) -> list[str]:
        """Return the files of the processes that lead ports of the host to a run's NICs."""
        folder = self.run(run)
        return [f"{folder}/{name}" for name in files.listdir(folder) if name.startswith(_RELAY)]

    def runs(self) -> list[str]:
        """Return the names of all runs that have a folder, living or dead."""
        return [of_file(file) for file in files.listdir(f"{self.base}/runs")]

    def network(self, bridge: str) -> str:
        """Return the folder of the network on BRIDGE."""
        return f"{self.base}/networks/{as_file(bridge)}"

    def member(self, bridge: str, run: str) -> str:
        """Return the file that makes a run a member of the network on BRIDGE."""
        return f"{self.network(bridge)}/members/{as_file(run)}"

    def kept(self, bridge: str) -> str:
        """Return the file that keeps the network on BRIDGE up without a run."""
        return f"{self.network(bridge)}/members/{_KEPT}"

    def members(self, bridge: str) -> list[str]:
        """Return the runs that are members of the network on BRIDGE, living or dead."""
        found = files.listdir(f"{self.network(bridge)}/members")
        return [of_file(file) for file in found if file != _KEPT]

    def networks(self) -> list[str]:
        """Return the bridges of all networks in use."""
        return [of_file(file) for file in files.listdir(f"{self.base}/networks")]

    @property
    def shared_folder(self) -> str:
        """The folder of what several networks use."""
        return f"{self.base}/shared"

    @property
    def code_folder(self) -> str:
        """The folder of the archives of this package that runs have hard links to."""
        return f"{self.base}/code"

    @property
    def rules_users(self) -> str:
        """The file of the networks and runs with chains in qemu-netwrap's nftables table."""
        return f"{self.shared_folder}/rules"

    @property
    def guards(self) -> str:
        """The file of qemu-netwrap's policy rules, with the networks that need each."""
        return f"{self.shared_folder}/guards"

    def forwarding(self, device: str) -> str:
        """Return the file of a device's forwarding: the device, and the networks that need it."""
        return f"{self.shared_folder}/{_FORWARDING}{as_file(device)}"

    def made_folder(self, manager: str) -> str:
        """Return the file that marks a network manager's folder in /run as made by qemu-netwrap."""
        return f"{self.shared_folder}/folder-{manager}"

    def forwarding_devices(self) -> frozenset[str]:
        """Return the devices whose forwarding qemu-netwrap has enabled."""
        names = files.listdir(self.shared_folder)
        found = (name.removeprefix(_FORWARDING) for name in names if name.startswith(_FORWARDING))
        return frozenset(map(of_file, found))

    def switch(self, device: str, key: str) -> str:
        """Return the file of an IPv6 setting: the device, and the networks that need it."""
        return f"{self.shared_folder}/{_SWITCH}{key}-{as_file(device)}"

    def switched(self, *keys: str) -> frozenset[str]:
        """Return the devices on which qemu-netwrap has set one of these IPv6 settings."""
        names = files.listdir(self.shared_folder)
        heads = tuple(f"{_SWITCH}{key}-" for key in keys)
        found = (n.removeprefix(head) for n in names for head in heads if n.startswith(head))
        return frozenset(map(of_file, found))

    def network_lock(self, bridge: str) -> str:
        """Return the lock of the network on BRIDGE."""
        return f"{self.base}/locks/{as_file(bridge)}"

    @property
    def host_lock(self) -> str:
        """The lock to create a network or take one down."""
        return f"{self.base}/locks/-host"

    @property
    def nft_lock(self) -> str:
        """The lock that each nft that is started holds while it changes rules."""
        return f"{self.base}/locks/-nft"

    @property
    def macs_lock(self) -> str:
        """The lock to look for free MACs and take them."""
        return f"{self.base}/locks/-macs"

    @property
    def takeover_lock(self) -> str:
        """The lock to release a run whose own lock another process keeps."""
        return f"{self.base}/locks/-takeover"

    @property
    def macs_folder(self) -> str:
        """The folder of the guests' MACs."""
        return f"{self.base}/macs"

    def mac(self, mac: str) -> str:
        """Return the file of a guest's MAC."""
        return f"{self.macs_folder}/{mac}"

    def name(self, bridge: str, name: str) -> str:
        """Return the file of a guest's name on a network."""
        return f"{self.network(bridge)}/names/{name}"

    def address(self, bridge: str, address: str) -> str:
        """Return the file of an address that a guest on a network has to itself."""
        return f"{self.network(bridge)}/addresses/{address}"

    def mac_holder(self, mac: str, bridge: str = "") -> tuple[str, str]:
        """Return the living run that has a MAC, and its bridge; ("", "") if none has.

        Of several it is the oldest claim, on BRIDGE if there is one there.
        """
        found = self.holders(self.mac(mac))
        return next((each for each in found if each[1] == bridge), (*found, ("", ""))[0])

    def owns_mac(self, mac: str, run: str, bridge: str) -> bool:
        """Whether RUN is the first of the living runs that have a MAC on BRIDGE."""
        found = (r for r, where in self.holders(self.mac(mac), run) if where == bridge)
        return next(found, run) == run

    def owns_name(self, name: str, run: str, bridge: str, mac: str) -> bool:
        """Whether RUN's NIC with a MAC is the first of the living ones that claim a name."""
        mine = (run, mac)
        return next(iter(self.holders(self.name(bridge, name), run)), mine) == mine

    def holders(self, path: str, own: str = "") -> list[tuple[str, str]]:
        """Return (run, what it claims) of the living runs in a claims file; OWN counts as one."""
        users = Uses.read(path).users
        return [each for each in users if each[0] == own or self.is_alive(each[0])]

    def is_alive(self, run: str) -> bool:
        """Whether QEMU or its launcher lives, or the keeper, which cleans up after QEMU."""
        folder = self.run(run)
        if files.is_locked(f"{folder}/lock") or files.is_locked(f"{folder}/keeper"):
            return True
        try:
            return self.tap_lives(run)
        except HostError:
            return True  # its tap's file is damaged: assume that it lives and needs what it uses

    def tap(self, run: str) -> LiveTap | None:
        """Return the tap that a run lives by; None for a run that lives by its lock.

        Raises `HostError` if the file is damaged.
        """
        line = files.read(f"{self.run(run)}/tap").rstrip("\n")
        if not line:
            return None
        try:
            fields = record_text.read(line)[1]
            return LiveTap(int(fields["index"]), fields["name"], fields["held"] == "1")
        except (KeyError, ValueError) as error:
            raise HostError(
                f"{self.run(run)}/tap is damaged: {error}", "end that run's QEMU, and remove it"
            ) from error

    def write_tap(self, run: str, tap: LiveTap) -> None:
        """Record that a run lives by a tap."""
        fields = {"index": str(tap.index), "name": tap.name, "held": str(int(tap.held))}
        files.write(f"{self.run(run)}/tap", record_text.write("tap", fields) + "\n")

    def forget_tap(self, run: str) -> None:
        """Remove the record that a run lives by a tap."""
        files.remove(f"{self.run(run)}/tap")

    def tap_lives(self, run: str) -> bool:
        """Whether the tap exists that a run lives by.

        It is identified by its ifindex, which the kernel does not reuse until it has counted
        through all of them; a renamed tap is still the same.
        """
        tap = self.tap(run)
        return tap is not None and host_facts.has_tap(tap.index, held=tap.held)

    def drop_other_boots(self) -> None:
        """Remove the state of earlier boots, where /run outlives one: its resources are gone."""
        root, _, name = self.base.rpartition("/")
        boot = name.partition("-")[0]
        for other in files.listdir(root):
            if other.partition("-")[0] != boot:
                path = f"{root}/{other}"
                (files.remove_folder if os.path.isdir(path) else files.remove)(path)

    def tidy(self) -> None:
        """Remove empty folders, from the inside out, and locks that are no longer needed."""
        for name in files.listdir(self.code_folder):
            files.remove_unlinked(f"{self.code_folder}/{name}")
        inner = [f"{self.base}/{name}" for name in ("runs", "networks", "macs", "shared", "code")]
        if any(os.path.exists(path) for path in inner):
            files.remove_empty(inner)
        if not any(os.path.exists(path) for path in inner):
            _remove_locks(self.base)
        files.remove_empty([f"{self.base}/locks", self.base])
        if os.path.exists(self.machine):
            tidy_machine(self.machine)
        if not (realm.is_system() or os.path.exists(self.base)):
            realm.tidy(self.base)
        files.remove_empty([os.path.dirname(self.base)])


def tidy_machine(base: str) -> None:
    """Remove empty folders in BASE, the folder of the machine's PCI devices (pci_state)."""
    inner = [f"{base}/{name}" for name in ("claims", "functions", "bound")]
    files.remove_empty(inner)
    if not any(map(os.path.exists, inner)):
        _remove_locks(base)
    files.remove_empty([f"{base}/locks", base])


def _remove_locks(base: str) -> None:
    """Remove the locks under BASE. A run may be starting: files whose lock is held are kept."""
    for name in files.listdir(f"{base}/locks"):
        files.remove_lock(f"{base}/locks/{name}")


def prepare() -> None:
    """Create the root folder. Raises `HostError` without the privilege, or if it is unsafe."""
    found, root = _made_root(), realm.root()
    if root == realm.SYSTEM and found.st_uid == 0 != os.geteuid():
        raise HostError(f"{root}: it is root's", _NEEDS_ROOT)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022 or not stat.S_ISDIR(found.st_mode):
        raise HostError(
            f"{root} belongs to another user, or others may write to it",
            "run as its owner; if it should not be there, remove it"
            if root == realm.SYSTEM
            else f"if it is not yours, have it removed; or {_ANOTHER}",
        )


def _made_root() -> os.stat_result:
    """Return lstat(2) of the root folder, created if needed. Raises `HostError`."""
    root = realm.root()
    while True:
        try:
            files.make_folder(root, 0o755 if root == realm.SYSTEM else 0o700)
            return os.lstat(root)
        except FileNotFoundError:
            continue  # a process that is ending has removed it as empty
        except OSError as error:
            raise _no_root(error) from error


def look_in() -> None:
    """Enter an ordinary user's realm, or an empty one, to look. Raises `HostError`.

    Never on the host: a bridge of root's would be taken for what is left of a network.
    """
    if os.path.lexists(realm.root()):
        prepare()
    realm.look_in()


def foresee() -> None:
    """Raise the `HostError` of a launch if state cannot be written; create nothing."""
    root = realm.root()
    folder = root if os.path.isdir(root) else os.path.dirname(root)
    found = os.statvfs(folder)
    number = 0
    if found.f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif (found.f_blocks and not found.f_bavail) or (found.f_files and not found.f_favail):
        number = errno.ENOSPC
    if number:
        raise _no_root(OSError(number, os.strerror(number)))


def _no_root(error: OSError) -> HostError:
    """Return the error for a root folder that cannot be created or written to."""
    root = realm.root()
    if root != realm.SYSTEM and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"state is kept there; {_ANOTHER}"
    else:
        hint = linux.remedies.remedy(error, _NEEDS_ROOT, root)
    return HostError(f"{root}: {error.strerror}", hint)


def _check(command: str) -> None:
    """Create the root folder for COMMAND. Raises `HostError` if the user may not use it."""
    try:
        prepare()
    except HostError as error:
        if os.geteuid() == 0:
            raise
        if realm.root() != realm.SYSTEM:
            raise HostError(f"{command}: {error.message}", error.hint) from error
        # Who has CAP_NET_ADMIN works on the host's networks, as root.
        message = f"{command}: the host's runs and networks are root's ({error.message})"
        raise HostError(message, f"sudo qemu-netwrap {command}") from error
