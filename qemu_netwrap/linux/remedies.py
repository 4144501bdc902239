"""What to do about an error of the kernel, by its number, its place and the privilege there is."""

from __future__ import annotations

from qemu_netwrap import doctor
from qemu_netwrap.model.causes import RUN, cause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.causes import Standing


def remedy(error: OSError, otherwise: str, place: str = "") -> str:
    """Return the hint for an error at PLACE, by default its file; OTHERWISE where none is known."""
    where = place or (error.filename if isinstance(error.filename, str) else "")
    found = cause(error.errno or 0, where or RUN, standing())
    return str(found) if found else otherwise


def standing() -> Standing:
    """Return with what privilege this process asks, and where."""
    return doctor.probe.standing()
