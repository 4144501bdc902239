"""Resources explained by the shell commands equivalent to acquiring and releasing them."""

from __future__ import annotations

import shlex

from qemu_netwrap.model import names
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources.base import Resource

_NAMES = ("name", "bridge", "device", "tap")  # the fields that may name an interface


class Step(Record):
    """One resource, and the commands equivalent to acquiring and to releasing it."""

    resource: Resource
    do: tuple[str, ...]
    undo: tuple[str, ...]


def explain(resource: Resource) -> Step:
    """Return the commands equivalent to acquiring and to releasing RESOURCE."""
    commands = _quoted(resource).explain()
    return Step(resource, commands.do, commands.undo)


def _quoted(resource: Resource) -> Resource:
    """Return a resource with its interface names quoted for a shell: `$(x)` is a valid name."""
    named = {key: getattr(resource, key) for key in _NAMES if key in resource.fields}
    strange = {key: name for key, name in named.items() if not names.plain_ifname(f"x{name}")}
    if not strange:
        return resource
    return resource.replace(**{key: shlex.quote(name) for key, name in strange.items()})
