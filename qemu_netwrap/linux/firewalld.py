"""firewalld's runtime zones, by D-Bus (firewalld.dbus(5)); its permanent ones stay as they are."""

from __future__ import annotations

from qemu_netwrap.linux.dbus import Bus, DBusError, Reply

_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_ZONE = "org.fedoraproject.FirewallD1.zone"
# The errors of firewalld.dbus(5) for an interface that is not, or no longer, in the zone.
_GONE = ("UNKNOWN_INTERFACE", "ZONE_CONFLICT", "INVALID_ZONE")
_ABSENT = ("ServiceUnknown", "NameHasNoOwner")


def zone_of(interface: str) -> str:
    """Return the zone that an interface was added to, empty for none. Raises `DBusError`."""
    return _call("getZoneOfInterface", interface).text


def add(zone: str, interface: str) -> None:
    """Add an interface to a zone. Raises `DBusError`."""
    _call("addInterface", zone, interface)


def remove(zone: str, interface: str) -> None:
    """Remove an interface from a zone; it, or firewalld, may be gone. Raises `DBusError`."""
    try:
        _call("removeInterface", zone, interface)
    except DBusError as error:
        is_absent = not error.name or error.name.endswith(_ABSENT)
        if not is_absent and not str(error).startswith(_GONE):
            raise


def _call(method: str, *arguments: str) -> Reply:
    """Call a method of firewalld's zones."""
    with Bus() as bus:
        return bus.call(_NAME, _PATH, _ZONE, method, *arguments)
