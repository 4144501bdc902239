"""Settings under net/*/conf: of devices of ours, and of the host's own, which networks share.

One that is shared is set by the first network that needs it, and back with the last. A file for
each (`uses.Uses`) says which device it is of, what else setting it has changed, and who needs it:

    INDEX [OTHER ...]
    BRIDGE
    ...
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import ALL, Commands, Resource
from qemu_netwrap.uses import Uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved

_V4, _V6 = "ipv4", "ipv6"
_DEFAULT = "default"
_EVERY_DEVICE = "0"  # in the place of an ifindex


class Sysctl(Resource):
    """A sysctl under net/FAMILY/conf of a device we made; it goes with the device."""

    kind = "DeviceSetting"

    device: str
    family: str
    key: str
    value: str
    optional: bool = False  # the network does without where it cannot be set

    def acquire(self, context: Context) -> Iterator[None]:
        """Set a sysctl of a device of ours, if it differs. A kernel without IPv6 has none to set.

        Nor is it of use on a device whose IPv6 is off.
        """
        if linux.sysctl.read(self.family, self.device, self.key) not in ("", self.value):
            try:
                _set(self.family, self.device, self.key, self.value, context)
            except HostError:
                off = linux.sysctl.read(self.family, self.device, "disable_ipv6")
                if not self.optional and off != "1":
                    raise
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Do nothing: the setting goes with the device."""
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether somebody has given it another value."""
        found = linux.sysctl.read(self.family, self.device, self.key)
        return found not in ("", self.value)

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        where = f"net/{self.family}/conf/{self.device}/{self.key}"
        return Commands((f"sysctl -w {where}={self.value}",))


class Forwarding(Resource):
    """IPv4 forwarding of what comes in by a device that is not ours; shared by networks."""

    kind = "Forwarding"

    device: str
    user: str  # the bridge of the network that needs it

    @property
    def shared_device(self) -> tuple[str, str]:
        """The device, for all networks that need it."""
        return "ipv4", self.device

    def acquire(self, context: Context) -> Iterator[None]:
        """Switch on a device's forwarding once the rules are in place; remember who needs it.

        A device that forwards already, and not by us, is let be: nobody is written down for it. Nor
        is anybody for one that has gone since its routes were looked at, a container's say.
        """
        yield
        self._shared.acquire(context)

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Switch the device's forwarding off again with its last user, if we switched it on.

        Not if the host has become a router meanwhile: the global switch turns on every device's,
        and whoever used it (Docker does) needs this one too.
        """
        self._shared.release(context)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether somebody has switched it off: `sysctl --system` may."""
        return self._shared.is_former()

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        key = f"net/ipv4/conf/{self.device}/forwarding"
        back = f"sysctl -w {key}=0  # only if it was 0, and when no other network needs it"
        return Commands((f"sysctl -w {key}=1",), (back,))

    @property
    def _shared(self) -> _Shared:
        """What the kinds of shared settings have in common."""
        return _Shared(_V4, self.device, "forwarding", "0", "1", self.user)


class Switch(Resource):
    """A setting under net/ipv6/conf of a device that is not ours, or of ALL; shared by networks.

    It is touched only where it is FORMER, and given back only where it is VALUE still.
    """

    kind = "Switch"

    device: str
    key: str
    former: str
    value: str
    user: str  # the bridge of the network that needs it

    @property
    def shared_device(self) -> tuple[str, str]:
        """The device, for all networks that need it."""
        return _V6, self.device

    def acquire(self, context: Context) -> Iterator[None]:
        """Throw a switch; remember who needs it. To forward comes after the rules.

        What is not as it has to be for that is let be: nobody is written down for it.
        """
        if self.key != "accept_ra":
            yield
        self._shared.acquire(context)
        if self.key == "accept_ra":
            yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Put the switch back with its last user, unless somebody has given it another value."""
        self._shared.release(context)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether somebody has put it back: `sysctl --system` may."""
        return self._shared.is_former()

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        key = f"net/ipv6/conf/{self.device}/{self.key}"
        back = f"sysctl -w {key}={self.former}"
        back += "  # only if it was, and when no other network needs it"
        return Commands((f"sysctl -w {key}={self.value}  # only if it is {self.former}",), (back,))

    @property
    def _shared(self) -> _Shared:
        """What the kinds of shared settings have in common."""
        return _Shared(_V6, self.device, self.key, self.former, self.value, self.user)


class _Shared(Record):
    """A setting that networks share, of a device of the host's or of ALL, as USER needs it."""

    family: str
    device: str
    key: str
    former: str  # the value that it has to have before
    value: str
    user: str

    def acquire(self, context: Context) -> None:
        """Set it if it is as it was; write down who needs it before."""
        path = self._path(context)
        index = _index_of(self.device, context)
        if not index:
            return
        known = Uses.read_changed(path)
        # Otherwise those were users of another device of that name.
        uses = known if known.former[:1] == (index,) else Uses((index,))
        is_former = self.is_former()
        if not is_former and not uses.users:
            return
        if is_former and self.device == ALL:
            uses = uses.replace(former=tuple(dict.fromkeys((*uses.former, *_forwarders()))))
        uses.with_use(self.user).write(path)
        if is_former:
            _set(self.family, self.device, self.key, self.value, context)
            if self.device == ALL and _DEFAULT not in uses.former:
                # A device that comes later is to go on listening to its routers.
                linux.sysctl.write(self.family, _DEFAULT, self.key, self.former)

    def release(self, context: Context) -> None:
        """Put it back with its last user."""
        path = self._path(context)
        uses = Uses.read_changed(path)
        left = uses.without(self.user)
        if left.users:
            left.write(path)
        elif uses.former:
            if not self._is_needed_by_host():
                self._put_back(uses, path, context)
            linux.files.remove(path)

    def is_former(self) -> bool:
        """Whether it has the value that it had before."""
        return linux.sysctl.read(self.family, self.device, self.key) == self.former

    def _path(self, context: Context) -> str:
        """Return the file that says who needs it."""
        if self.family == _V4:
            return context.state.forwarding(self.device)
        return context.state.switch(self.device, self.key)

    def _is_needed_by_host(self) -> bool:
        """Whether the host forwards IPv4 by all devices, this one among them."""
        return self.family == _V4 and linux.sysctl.read(_V4, ALL, "forwarding") == "1"

    def _put_back(self, uses: Uses, path: str, context: Context) -> None:
        """Give it its former value, and what the global one has taken along.

        A file without users tells of a crash in between: then it may be back, the rest not.
        """
        index, *others = uses.former
        device = self.device if index == _EVERY_DEVICE else context.rtnl.index_name(int(index))
        is_ours = bool(device) and linux.sysctl.read(self.family, device, self.key) == self.value
        if is_ours:
            if others:
                uses.replace(users=()).write(path)
            _set(self.family, device, self.key, self.former, context)
        if is_ours or not uses.users:
            for other in others:
                name = other if other == _DEFAULT else context.rtnl.index_name(int(other))
                if name:
                    linux.sysctl.write_if_there(self.family, name, self.key, self.value)


def _set(family: str, device: str, key: str, value: str, context: Context) -> None:
    """Set a device's setting, unless the device has just gone. Raises `HostError`.

    Where /proc/sys is read-only, as in most containers, the kernel takes IPv4's by netlink.
    """
    try:
        linux.sysctl.write_if_there(family, device, key, value)
    except HostError:
        link = context.rtnl.link(device) if family == _V4 else None
        if link is None:
            raise
        context.rtnl.set_ipv4(link.index, ((key, value),))


def _forwarders() -> list[str]:
    """Return what forwards IPv6, each for itself, while the global switch is off.

    Devices by their numbers, and `default`.
    """
    by_default = [_DEFAULT] if linux.sysctl.read(_V6, _DEFAULT, "forwarding") == "1" else []
    return [*by_default, *map(str, linux.ipv6_facts.forwarders())]


def _index_of(device: str, context: Context) -> str:
    """Return a device's number as text; empty if it has gone since it was looked at."""
    if device == ALL:
        return _EVERY_DEVICE
    link = context.rtnl.link(device)
    return str(link.index) if link is not None else ""
