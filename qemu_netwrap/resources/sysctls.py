"""Settings under net/*/conf: of devices of ours, and of the host's own, which networks share.

One that is shared is set by the first network that needs it, and back with the last. A file for
each says what it is about, what else setting it has changed, and who needs it:

    INDEX [OTHER ...]
    BRIDGE
    ...
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import ALL, Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved

_V6 = "ipv6"
_DEFAULT = "default"
_EVERY_DEVICE = "0"  # in the place of an ifindex


class DeviceSetting(Resource):
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

    def acquire(self, context: Context) -> Iterator[None]:
        """Switch on a device's forwarding once the rules are in place; remember who needs it.

        A device that forwards already, and not by us, is let be: nobody is written down for it. Nor
        is anybody for one that has gone since its routes were looked at, a container's say.
        """
        yield
        path = context.state.forwarding(self.device)
        link = context.rtnl.link(self.device)
        if link is None:
            return
        known, *users = linux.files.read(path).split() or [""]
        if known != str(link.index):
            users = []  # those were users of another device of that name
        if users or linux.sysctl.read("ipv4", self.device, "forwarding") == "0":
            lines = [str(link.index), *dict.fromkeys([*users, self.user])]
            linux.files.write(path, "\n".join(lines) + "\n")
            _set("ipv4", self.device, "forwarding", "1", context)

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Switch the device's forwarding off again with its last user, if we switched it on.

        Not if the host has become a router meanwhile: the global switch turns on every device's,
        and whoever used it (Docker does) needs this one too.
        """
        path = context.state.forwarding(self.device)
        index, *users = linux.files.read(path).split() or [""]
        users = [user for user in users if user != self.user]
        if users:
            linux.files.write(path, "\n".join([index, *users]) + "\n")
        elif index:
            device = context.rtnl.index_name(int(index))
            is_router = linux.sysctl.read("ipv4", "all", "forwarding") == "1"
            if device and not is_router:
                _set("ipv4", device, "forwarding", "0", context)
            linux.files.remove(path)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether somebody has switched it off: `sysctl --system` may."""
        return linux.sysctl.read("ipv4", self.device, "forwarding") == "0"

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        key = f"net/ipv4/conf/{self.device}/forwarding"
        back = f"sysctl -w {key}=0  # only if it was 0, and when no other network needs it"
        return Commands((f"sysctl -w {key}=1",), (back,))


def _set(family: str, device: str, key: str, value: str, context: Context) -> None:
    """Set a device's setting, unless the device has just gone. Raises `HostError`.

    Where /proc/sys is read-only, as in most containers, the kernel takes IPv4's by netlink.
    """
    try:
        linux.sysctl.write_if_there(family, device, key, value)
    except HostError:
        link = context.rtnl.link(device) if family == "ipv4" else None
        if link is None:
            raise
        context.rtnl.set_ipv4(link.index, ((key, value),))


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

    def acquire(self, context: Context) -> Iterator[None]:
        """Throw a switch; remember who needs it. To forward comes after the rules.

        What is not as it has to be for that is let be: nobody is written down for it.
        """
        if self.key != "accept_ra":
            yield
        _throw(self, context)
        if self.key == "accept_ra":
            yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Put the switch back with its last user, unless somebody has given it another value."""
        path = context.state.switch(self.device, self.key)
        use = _Use.read(path)
        users = tuple(user for user in use.users if user != self.user)
        if users:
            use.replace(users=users).write(path)
        elif use.index:
            _put_back(self, use, path, context)
            linux.files.remove(path)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether somebody has put it back: `sysctl --system` may."""
        return linux.sysctl.read(_V6, self.device, self.key) == self.former

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        key = f"net/ipv6/conf/{self.device}/{self.key}"
        back = f"sysctl -w {key}={self.former}"
        back += "  # only if it was, and when no other network needs it"
        return Commands((f"sysctl -w {key}={self.value}  # only if it is {self.former}",), (back,))


class _Use(Record):
    """What a switch's file says."""

    index: str = ""
    others: tuple[str, ...] = ()  # what forwarded for itself before: devices by ifindex, `default`
    users: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str) -> _Use:
        """Read a file; one that is not there says nothing."""
        first, *users = linux.files.read(path).split("\n")
        index, *others = first.split() or [""]
        return cls(index, tuple(others), tuple(user for user in users if user))

    def write(self, path: str) -> None:
        """Write the file."""
        lines = [" ".join((self.index, *self.others)), *self.users]
        linux.files.write(path, "\n".join(lines) + "\n")


def _throw(s: Switch, context: Context) -> None:
    """Throw a switch if it is as it was; remember who needs it."""
    path = context.state.switch(s.device, s.key)
    index = _index_of(s.device, context)
    if not index:
        return
    known = _Use.read(path)
    use = known if known.index == index else _Use(index)
    is_former = linux.sysctl.read(_V6, s.device, s.key) == s.former
    if not is_former and not use.users:
        return
    if is_former and s.device == ALL:
        use = use.replace(others=tuple(dict.fromkeys((*use.others, *_forwarders()))))
    use.replace(users=tuple(dict.fromkeys((*use.users, s.user)))).write(path)
    if is_former:
        linux.sysctl.write_if_there(_V6, s.device, s.key, s.value)
        if s.device == ALL and _DEFAULT not in use.others:
            # A device that comes later is to go on listening to its routers.
            linux.sysctl.write(_V6, _DEFAULT, s.key, s.former)


def _put_back(s: Switch, use: _Use, path: str, context: Context) -> None:
    """Put a switch back, and what the global one takes along.

    A file without users tells of a crash in between: then the switch may be back, the rest not.
    """
    device = s.device if use.index == _EVERY_DEVICE else context.rtnl.index_name(int(use.index))
    is_ours = bool(device) and linux.sysctl.read(_V6, device, s.key) == s.value
    if is_ours:
        use.replace(users=()).write(path)
        linux.sysctl.write_if_there(_V6, device, s.key, s.former)
    if is_ours or not use.users:
        for other in use.others:
            name = other if other == _DEFAULT else context.rtnl.index_name(int(other))
            if name:
                linux.sysctl.write_if_there(_V6, name, s.key, s.value)


def _forwarders() -> list[str]:
    """Return what forwards, each for itself, while the global switch is off."""
    by_default = [_DEFAULT] if linux.sysctl.read(_V6, _DEFAULT, "forwarding") == "1" else []
    return [*by_default, *map(str, linux.ipv6_facts.forwarders())]


def _index_of(device: str, context: Context) -> str:
    """Return a device's number as text; empty if it has gone since it was looked at."""
    if device == ALL:
        return _EVERY_DEVICE
    link = context.rtnl.link(device)
    return str(link.index) if link is not None else ""
