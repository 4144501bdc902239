"""What network managers are told of a network's devices."""

from __future__ import annotations

import os

from qemu_netwrap import linux
from qemu_netwrap.model.network_managers import MANAGERS
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved


class UnmanagedDevices(Resource):
    """A network's devices that a network manager is told to leave alone."""

    kind = "Unmanaged"

    bridge: str
    manager: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Have the manager leave the network's devices alone, before there are any."""
        manager = MANAGERS[self.manager]
        if not os.path.isdir(manager.folder):
            linux.files.write(context.state.made_folder(self.manager), "")
            linux.files.make_folder(manager.folder, 0o755)
        linux.files.write(manager.path_of(self.bridge), manager.text_of(self.bridge), 0o644)
        try:
            linux.network_managers.reload(manager)
        except linux.dbus.DBusError as error:
            context.say(f"{self.bridge}: {self.manager} does not leave it alone: {error}")
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Take back what the manager was told, with the folder if it was ours."""
        yield
        manager = MANAGERS[self.manager]
        path = manager.path_of(self.bridge)
        for name in linux.files.listdir(manager.folder):
            if f"{manager.folder}/{name}".startswith(path):  # a crash may have left a scratch file
                linux.files.remove(f"{manager.folder}/{name}")
        made = context.state.made_folder(self.manager)
        ours = manager.file.partition("{")[0]
        if not any(name.startswith(ours) for name in linux.files.listdir(manager.folder)):
            if os.path.exists(made):
                # Not if it is of use to somebody else by now.
                linux.files.remove_empty([manager.folder])
            linux.files.remove(made)
        try:
            linux.network_managers.reload(manager)
        except linux.dbus.DBusError:
            pass  # it has gone meanwhile

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        manager = MANAGERS[self.manager]
        path, text = manager.path_of(self.bridge), manager.text_of(self.bridge)
        reload = f"busctl call {manager.service} {manager.path} {manager.interface} Reload"
        reload += "".join(f" u {argument}" for argument in manager.arguments)
        return Commands((f"cat >{path} <<'EOF'\n{text}EOF", reload), (f"rm {path}", reload))
