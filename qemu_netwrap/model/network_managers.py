"""Network managers, and how to make those that can be configured leave a network's devices alone.

At run time qemu-netwrap writes a file to a folder under /run that the manager reads, before the
devices are created: so the manager never configures them. The names in it are the generated ones
(model.names): a tap that the user names by `ifname=` is not covered.
"""

from __future__ import annotations

from qemu_netwrap.model import names, plain_text
from qemu_netwrap.record import Record

NETWORK_MANAGER, NETWORKD, DHCPCD = "NetworkManager", "systemd-networkd", "dhcpcd"
FIREWALLD = "firewalld"


class Manager(Record):
    """A manager: which file it reads, and the D-Bus method that makes it reload."""

    folder: str  # the folder for the file
    file: str  # its name; {} stands for the bridge
    text: str  # its content; {0} stands for the bridge
    service: str  # its name on the system bus
    path: str
    interface: str
    arguments: tuple[int, ...] = ()  # of its method Reload

    def path_of(self, bridge: str) -> str:
        """Return the file's path for the network on BRIDGE."""
        return f"{self.folder}/{self.file.format(bridge)}"

    def text_of(self, bridge: str) -> str:
        """Return the file's text for the network on BRIDGE: it covers the bridge and all taps."""
        return plain_text.lines(self.text.format(bridge))


def can_name(bridge: str) -> bool:
    """Whether BRIDGE, written to a manager's file, matches that bridge only.

    Both managers read a name as a pattern (`*`, `?`, `[`, with `!` or `~` to negate it), split it
    at `;`, `,` or a blank, and read a backslash as an escape.
    """
    return names.plain_ifname(f"x{bridge}")


# NetworkManager.conf(5), section `device`; 1 makes Reload read the configuration only.
# systemd.network(5); the first file that matches counts, so this one sorts before users' files.
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
