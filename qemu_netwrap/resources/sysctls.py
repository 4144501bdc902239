"""Switches of the host that several networks need: thrown by the first, back with the last.

A file for each says what it is about, what else throwing it has changed, and who needs it:

    INDEX [OTHER ...]
    BRIDGE
    ...
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.linux import files, sysctl
from qemu_netwrap.record import Record
from qemu_netwrap.resources.kinds import ALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.effects import Facts, Note, Work
    from qemu_netwrap.resources.kinds import Switch

_V6 = "ipv6"
_DEFAULT = "default"
_EVERY_DEVICE = "0"  # in the place of an ifindex


class _Use(Record):
    """What a switch's file says."""

    index: str = ""
    others: tuple[str, ...] = ()  # what forwarded for itself before: devices by ifindex, `default`
    users: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str) -> _Use:
        """Read a file; one that is not there says nothing."""
        first, *users = files.read(path).split("\n")
        index, *others = first.split() or [""]
        return cls(index, tuple(others), tuple(user for user in users if user))

    def write(self, path: str) -> None:
        """Write the file."""
        lines = [" ".join((self.index, *self.others)), *self.users]
        files.write(path, "\n".join(lines) + "\n")


def acquire(s: Switch, _note: Note, work: Work) -> Iterator[None]:
    """Throw a switch; remember who needs it. To forward comes after the rules.

    What is not as it has to be for that is let be: nobody is written down for it.
    """
    if s.key != "accept_ra":
        yield
    _throw(s, work)
    if s.key == "accept_ra":
        yield


def _throw(s: Switch, work: Work) -> None:
    """Throw a switch if it is as it was; remember who needs it."""
    path = work.state.switch(s.device, s.key)
    index = _index_of(s.device, work)
    if not index:
        return
    known = _Use.read(path)
    use = known if known.index == index else _Use(index)
    is_former = sysctl.read(_V6, s.device, s.key) == s.former
    if not is_former and not use.users:
        return
    if is_former and s.device == ALL:
        use = use.replace(others=tuple(dict.fromkeys((*use.others, *_forwarders()))))
    use.replace(users=tuple(dict.fromkeys((*use.users, s.user)))).write(path)
    if is_former:
        sysctl.write_if_there(_V6, s.device, s.key, s.value)
        if s.device == ALL and _DEFAULT not in use.others:
            # A device that comes later is to go on listening to its routers.
            sysctl.write(_V6, _DEFAULT, s.key, s.former)


def release(s: Switch, _facts: Facts, work: Work) -> Iterator[None]:
    """Put the switch back with its last user, unless somebody has given it another value."""
    path = work.state.switch(s.device, s.key)
    use = _Use.read(path)
    users = tuple(user for user in use.users if user != s.user)
    if users:
        use.replace(users=users).write(path)
    elif use.index:
        _put_back(s, use, path, work)
        files.remove(path)
    yield


def _put_back(s: Switch, use: _Use, path: str, work: Work) -> None:
    """Put a switch back, and what the global one takes along.

    A file without users tells of a crash in between: then the switch may be back, the rest not.
    """
    device = s.device if use.index == _EVERY_DEVICE else work.rtnl.index_name(int(use.index))
    is_ours = bool(device) and sysctl.read(_V6, device, s.key) == s.value
    if is_ours:
        use.replace(users=()).write(path)
        sysctl.write_if_there(_V6, device, s.key, s.former)
    if is_ours or not use.users:
        for other in use.others:
            name = other if other == _DEFAULT else work.rtnl.index_name(int(other))
            if name:
                sysctl.write_if_there(_V6, name, s.key, s.value)


def _forwarders() -> list[str]:
    """Return what forwards, each for itself, while the global switch is off."""
    by_default = [_DEFAULT] if sysctl.read(_V6, _DEFAULT, "forwarding") == "1" else []
    return [*by_default, *map(str, linux.ipv6_facts.forwarders())]


def _index_of(device: str, work: Work) -> str:
    """Return a device's number as text; empty if it has gone since it was looked at."""
    if device == ALL:
        return _EVERY_DEVICE
    link = work.rtnl.link(device)
    return str(link.index) if link is not None else ""
