"""Settings under net/*/conf: of created devices, and of the host's own, which networks share.

A shared setting is set by the first network that needs it, and restored with the last. A file for
each (`uses.Uses`) holds the ifindex, which other devices it has changed, and the networks:

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
_EVERY_DEVICE = "0"  # in place of an ifindex


class Sysctl(Resource):
    """A sysctl under net/FAMILY/conf of a created device; it vanishes with the device."""

    kind = "DeviceSetting"

    device: str
    family: str
    key: str
    value: str
    optional: bool = False  # it is no error if it cannot be set

    def acquire(self, context: Context) -> Iterator[None]:
        """Set the sysctl if it differs. A kernel without IPv6 has none, which is no error.

        Nor is a failure on a device whose IPv6 is off. Otherwise raises `HostError`.
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
        """Do nothing: the setting vanishes with the device."""
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether another program has changed the value."""
        found = linux.sysctl.read(self.family, self.device, self.key)
        return found not in ("", self.value)

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        where = f"net/{self.family}/conf/{self.device}/{self.key}"
        return Commands((f"sysctl -w {where}={self.value}",))


class Forwarding(Resource):
    """IPv4 forwarding of packets that enter by a device of the host; shared by networks."""

    kind = "Forwarding"

    device: str
    user: str  # the bridge of the network that needs it

    @property
    def shared_device(self) -> tuple[str, str]:
        """The family and the device."""
        return "ipv4", self.device

    def acquire(self, context: Context) -> Iterator[None]:
        """Enable the device's forwarding once the rules are in place; record that USER needs it.

        A device that forwards already, without qemu-netwrap, is left alone and gets no user. Nor
        does a device that has gone since its routes were read (a container's, for example).
        """
        yield
        self._shared.acquire(context)

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Disable the device's forwarding with its last user, if `acquire` enabled it.

        Not if the host has become a router since: the global switch enables every device's, and
        the program that set it (Docker, for example) needs this one too.
        """
        self._shared.release(context)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether another program has switched it off: `sysctl --system` may."""
        return self._shared.is_former()

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        key = f"net/ipv4/conf/{self.device}/forwarding"
        back = f"sysctl -w {key}=0  # only if it was 0, and when no other network needs it"
        return Commands((f"sysctl -w {key}=1",), (back,))

    @property
    def _shared(self) -> _Shared:
        """The shared setting by which this kind is acquired and released."""
        return _Shared(_V4, self.device, "forwarding", "0", "1", self.user)


class Switch(Resource):
    """A setting under net/ipv6/conf of a device of the host, or of ALL; shared by networks.

    It is changed only if it is FORMER, and restored only if it is still VALUE.
    """

    kind = "Switch"

    device: str
    key: str
    former: str
    value: str
    user: str  # the bridge of the network that needs it

    @property
    def shared_device(self) -> tuple[str, str]:
        """The family and the device."""
        return _V6, self.device

    def acquire(self, context: Context) -> Iterator[None]:
        """Set it to VALUE; record that USER needs it. Forwarding is set after the rules.

        A setting that is not FORMER, and that no network has changed, is left alone.
        """
        if self.key != "accept_ra":
            yield
        self._shared.acquire(context)
        if self.key == "accept_ra":
            yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Restore FORMER with the last user, unless another program has changed the value."""
        self._shared.release(context)
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether another program has set it back to FORMER: `sysctl --system` may."""
        return self._shared.is_former()

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        key = f"net/ipv6/conf/{self.device}/{self.key}"
        back = f"sysctl -w {key}={self.former}"
        back += "  # only if it was, and when no other network needs it"
        return Commands((f"sysctl -w {key}={self.value}  # only if it is {self.former}",), (back,))

    @property
    def _shared(self) -> _Shared:
        """The shared setting by which this kind is acquired and released."""
        return _Shared(_V6, self.device, self.key, self.former, self.value, self.user)


class _Shared(Record):
    """A setting of a device of the host, or of ALL, that networks share; USER is one of them."""

    family: str
    device: str
    key: str
    former: str  # the value that it must have before
    value: str
    user: str

    def acquire(self, context: Context) -> None:
        """Record that USER needs it, then set it, if it is FORMER."""
        path = self._path(context)
        index = _index_of(self.device, context)
        if not index:
            return
        known = Uses.read_changed(path)
        # Otherwise these were the users of an earlier device with that name.
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
                # A device that appears later must keep accepting router advertisements.
                linux.sysctl.write(self.family, _DEFAULT, self.key, self.former)

    def release(self, context: Context) -> None:
        """Remove USER; with the last user, restore the setting."""
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
        """Whether its value is FORMER."""
        return linux.sysctl.read(self.family, self.device, self.key) == self.former

    def _path(self, context: Context) -> str:
        """Return the path of the file that lists its users."""
        if self.family == _V4:
            return context.state.forwarding(self.device)
        return context.state.switch(self.device, self.key)

    def _is_needed_by_host(self) -> bool:
        """Whether the host forwards IPv4 on all devices, including this one."""
        return self.family == _V4 and linux.sysctl.read(_V4, ALL, "forwarding") == "1"

    def _put_back(self, uses: Uses, path: str, context: Context) -> None:
        """Restore its former value, and the settings of devices that the global one has changed.

        A file without users means a crash in between: it may be restored, and the rest not.
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

    Where /proc/sys is read-only, as in most containers, the kernel accepts IPv4's by netlink.
    """
    try:
        linux.sysctl.write_if_there(family, device, key, value)
    except HostError:
        link = context.rtnl.link(device) if family == _V4 else None
        if link is None:
            raise
        context.rtnl.set_ipv4(link.index, ((key, value),))


def _forwarders() -> list[str]:
    """Return what has IPv6 forwarding of its own on while the global switch is off.

    Devices as their ifindexes in text, and `default`.
    """
    by_default = [_DEFAULT] if linux.sysctl.read(_V6, _DEFAULT, "forwarding") == "1" else []
    return [*by_default, *map(str, linux.ipv6_facts.forwarders())]


def _index_of(device: str, context: Context) -> str:
    """Return a device's ifindex as text, "0" for ALL; empty if the device no longer exists."""
    if device == ALL:
        return _EVERY_DEVICE
    link = context.rtnl.link(device)
    return str(link.index) if link is not None else ""
