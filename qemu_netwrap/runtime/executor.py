"""Acquiring resources in order and releasing them backwards, each step in a journal.

Orderly end, failed start and clean-up after a crash all go through `release_all`.
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.resources.effects import ACQUIRE, RELEASE
from qemu_netwrap.resources.kinds import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_netwrap.resources.effects import Work
    from qemu_netwrap.resources.kinds import Resource
    from qemu_netwrap.runtime.journal import Entry, Journal


def acquire_all(resources: Iterable[Resource], journal: Journal, work: Work) -> None:
    """Acquire RESOURCES in order. Raises `NetwrapError` and leaves what was made to the journal."""
    started: list[tuple[Resource, Iterator[None]]] = []
    try:
        for resource in resources:
            steps = _begin(resource, journal, work)
            started.append((resource, steps))
    finally:
        # What was started is waited for, also when a later one failed.
        errors = [error for resource, steps in started for error in _finish(resource, steps)]
    if errors:
        raise errors[0]


def release_all(journal: Journal, work: Work) -> list[NetwrapError]:
    """Release everything the journal holds, the last first; return what went wrong.

    One failure does not keep the others from being released. What was released, and is seen to
    be gone, leaves the journal; what was not stays in it for the next try.
    """
    errors: list[NetwrapError] = []
    started: list[tuple[Entry, Iterator[None]]] = []
    for entry in reversed(journal.live()):
        if isinstance(entry.resource, Unreadable):
            errors.append(_unreadable(entry.resource, journal))
            continue
        steps = RELEASE[type(entry.resource)](entry.resource, entry.facts, work)
        failed = _advance(entry.resource, steps)
        if failed is None:
            started.append((entry, steps))
        else:
            errors.append(failed)
    for entry, steps in started:
        failures = _finish(entry.resource, steps)
        errors.extend(failures)
        if not failures:
            journal.done(entry.number)
    return errors


def _unreadable(line: Unreadable, journal: Journal) -> HostError:
    """Return the error for a line of a journal that this version cannot read."""
    return HostError(
        f"{journal.path}: this version cannot read the line {line.line!r}",
        "run gc of the version that wrote it, or undo by hand what it names and remove the line",
    )


def _begin(resource: Resource, journal: Journal, work: Work) -> Iterator[None]:
    """Start acquiring one resource, its intent written down before."""
    number = journal.intend(resource)

    def note(**facts: str) -> None:
        journal.note(number, **facts)

    work.acquiring(resource)
    steps = ACQUIRE[type(resource)](resource, note, work)
    failed = _advance(resource, steps)
    if failed is not None:
        raise failed
    return steps


def _finish(resource: Resource, steps: Iterator[None]) -> list[NetwrapError]:
    """Go through the rest of the steps; return the failure, if any."""
    failed = _advance(resource, steps)
    return [] if failed is None else [failed]


def _advance(resource: Resource, steps: Iterator[None]) -> NetwrapError | None:
    """Go one step; return the failure, if any, as an error that names the resource."""
    try:
        next(steps, None)
    except NetwrapError as error:
        return error
    except OSError as error:
        return host_error(resource, error)
    except ImportError as error:
        return HostError(
            f"{_what(resource)}: {error}",
            "the program that started this run was removed: install it again, and run its gc",
        )
    except (KeyError, ValueError) as error:
        return HostError(
            f"{_what(resource)}: what its journal knows of it is damaged: {error}",
            "undo it by hand, and remove its line",
        )
    return None


def host_error(resource: Resource, error: OSError) -> HostError:
    """Return the kernel's refusal as an error of ours."""
    hint = linux.remedies.remedy(error, "-v shows what was being done")
    return HostError(f"{_what(resource)}: {error.strerror or error}", hint)


def _what(resource: Resource) -> str:
    """Return a resource as an error names it."""
    fields = [str(value) for value in resource.__dict__.values()]
    return f"{type(resource).__name__.lower()} {fields[0]}"
