"""firewalld's runtime zones, by its D-Bus interface (firewalld.dbus(5)). Nothing is permanent."""

from __future__ import annotations

from qemu_netwrap.linux.dbus import Bus, DBusError, Reply

_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_ZONE = "org.fedoraproject.FirewallD1.zone"
# Of the errors in firewalld.dbus(5), those that say that the interface is not, or no more, there.
_GONE = ("UNKNOWN_INTERFACE", "ZONE_CONFLICT", "INVALID_ZONE")
_ABSENT = ("ServiceUnknown", "NameHasNoOwner")


def zone_of(interface: str) -> str:
    """Return the zone that an interface was put into, empty for none. Raises `DBusError`."""
    return _call("getZoneOfInterface", interface).text


def add(zone: str, interface: str) -> None:
    """Put an interface into a zone. Raises `DBusError`."""
    _call("addInterface", zone, interface)


def remove(zone: str, interface: str) -> None:
    """Take an interface out of a zone; it may be gone, and so may firewalld."""
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
