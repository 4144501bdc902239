"""Network managers on this host: which are running, and which one manages an interface."""

from __future__ import annotations

from qemu_netwrap.linux import files, proc
from qemu_netwrap.linux.dbus import Bus, DBusError
from qemu_netwrap.model.network_managers import DHCPCD, MANAGERS, NETWORK_MANAGER, NETWORKD, Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink.links import Link


def running(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of NAMES, keys of `MANAGERS`, that can be reached by D-Bus."""
    if not names:
        return ()
    try:
        with Bus() as bus:
            return tuple(name for name in names if bus.has(MANAGERS[name].service))
    except DBusError:
        return ()


def reload(manager: Manager) -> None:
    """Have a manager reread its files. Raises `DBusError`."""
    with Bus() as bus:
        bus.call(manager.service, manager.path, manager.interface, "Reload", *manager.arguments)


def manager_of(link: Link) -> str:
    """Return the program that manages an interface, and would undo changes to it; else empty.

    NetworkManager(8) and systemd-networkd(8) have a file for each ifindex that they manage;
    dhcpcd(8) has a process for each interface.
    """
    path = f"/run/NetworkManager/devices/{link.index}"
    if _values(path, "managed") & {"1", "true"} and _lives("NetworkManager"):
        return NETWORK_MANAGER
    path = f"/run/systemd/netif/links/{link.index}"
    states = _values(path, "ADMIN_STATE")
    if states and not states & {"unmanaged", "initialized"} and _lives("systemd-network"):
        return NETWORKD
    pids = (f"/run/dhcpcd/{link.name}{tail}.pid" for tail in ("", "-4", "-6"))
    running = (files.read(path).strip() for path in pids)
    return DHCPCD if any(p.isdigit() and proc.exists(p) for p in running) else ""


def _values(path: str, key: str) -> set[str]:
    """Return the values that KEY has in a file of KEY=VALUE lines."""
    rows = (line.partition("=") for line in files.read(path).splitlines())
    return {value.strip() for name, _, value in rows if name.strip() == key}


def _lives(program: str) -> bool:
    """Whether a process has that name, of which the kernel keeps 15 bytes (proc(5))."""
    return any(proc.name(pid).startswith(program[:15]) for pid in proc.pids())
