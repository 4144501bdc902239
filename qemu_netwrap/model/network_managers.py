"""Network managers, and how those that can be are told to leave a network's devices alone.

At run time, by a file of ours in a folder under /run that it reads, before the devices are made:
there is no moment in which it may take them for its own. Names are those of the built-in scheme
(model.names): a tap that the user has named by `ifname=` is not among them.
"""

from __future__ import annotations

from qemu_netwrap.model import names, plain_text
from qemu_netwrap.record import Record

NETWORK_MANAGER, NETWORKD, DHCPCD = "NetworkManager", "systemd-networkd", "dhcpcd"
FIREWALLD = "firewalld"


class Manager(Record):
    """A manager: how to tell it something, and to have it listen."""

    folder: str  # where the file goes
    file: str  # its name, with the bridge's in it
    text: str  # what it says
    service: str  # its name on the bus
    path: str
    interface: str
    arguments: tuple[int, ...] = ()  # of its method Reload

    def path_of(self, bridge: str) -> str:
        """Return the file's path for the network on BRIDGE."""
        return f"{self.folder}/{self.file.format(bridge)}"

    def text_of(self, bridge: str) -> str:
        """Return the file's text for the network on BRIDGE: of the bridge and of our taps."""
        return plain_text.lines(self.text.format(bridge))


def can_name(bridge: str) -> bool:
    """Whether a manager's file can name BRIDGE, and nothing else by the same word.

    Both read a name as a pattern (`*`, `?`, `[`, a `!` or `~` for its opposite), cut it at `;`, `,`
    or a blank, and take a backslash for an escape.
    """
    return names.plain_ifname(f"x{bridge}")


# NetworkManager.conf(5), section `device`; Reload's 1 is its configuration alone.
# systemd.network(5); the number is before those of users' files: the first that matches counts.
MANAGERS: dict[str, Manager] = {
    NETWORK_MANAGER: Manager(
        "/run/NetworkManager/conf.d",
        "qemu-netwrap-{}.conf",
        "[device-qemu-netwrap-{0}]\nmatch-device=interface-name:{0};interface-name:qn*-*\n"
        "managed=0\n",
        "org.freedesktop.NetworkManager",
        "/org/freedesktop/NetworkManager",
        "org.freedesktop.NetworkManager",
        (1,),
    ),
    NETWORKD: Manager(
        "/run/systemd/network",
        "05-qemu-netwrap-{}.network",
        "[Match]\nName={0} qn*-*\n\n[Link]\nUnmanaged=yes\n",
        "org.freedesktop.network1",
        "/org/freedesktop/network1",
        "org.freedesktop.network1.Manager",
    ),
}
