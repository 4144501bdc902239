"""What a plan tells the user; nothing is made of it."""

from __future__ import annotations

from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved


class Remark(Resource):
    """Something in the network's way that is for the user to change. Nothing is made of it."""

    kind = "Remark"

    bridge: str
    text: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Tell the user."""
        context.say(self.text)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Do nothing: nothing was done."""
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return Commands((f"# {self.text}",))
