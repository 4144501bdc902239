"""Configuration by which network managers leave a network's devices alone."""

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
    """A configuration file by which a network manager leaves a network's devices alone."""

    kind = "Unmanaged"

    bridge: str
    manager: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Write the file and reload the manager, before the network has any device."""
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
        """Remove the file, and its folder if `acquire` created it; reload the manager."""
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
                # It stays if other programs have put files there.
                linux.files.remove_empty([manager.folder])
            linux.files.remove(made)
        try:
            linux.network_managers.reload(manager)
        except linux.dbus.DBusError:
            pass  # the manager is no longer running

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        manager = MANAGERS[self.manager]
        path, text = manager.path_of(self.bridge), manager.text_of(self.bridge)
        reload = f"busctl call {manager.service} {manager.path} {manager.interface} Reload"
        reload += "".join(f" u {argument}" for argument in manager.arguments)
        return Commands((f"cat >{path} <<'EOF'\n{text}EOF", reload), (f"rm {path}", reload))
