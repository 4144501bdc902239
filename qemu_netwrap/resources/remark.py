"""Messages to the user in a plan; they change nothing on the host."""

from __future__ import annotations

from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved


class Remark(Resource):
    """A message about an obstacle that only the user can remove. It changes nothing."""

    kind = "Remark"

    bridge: str
    text: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Print the message."""
        context.say(self.text)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Do nothing: nothing was done."""
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return Commands((f"# {self.text}",))
