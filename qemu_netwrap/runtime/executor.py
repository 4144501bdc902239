"""Acquire resources in order and release them in reverse, each step recorded in a journal.

A run's end, a failed start and the clean-up after a crash all use `release_all`.
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.resources.base import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qemu_netwrap.resources.base import Context, Resource
    from qemu_netwrap.resources.journal import Entry, Journal


def acquire_all(resources: Iterable[Resource], journal: Journal, context: Context) -> None:
    """Acquire RESOURCES in order. Raises `NetwrapError`; what was made stays in the journal."""
    started: list[_Steps] = []
    try:
        # One by one, so that `started` has those before the one that fails.
        started.extend(_begin(resource, journal, context) for resource in resources)
    finally:
        # Those that were started are finished, even if a later one failed.
        errors = [error for steps in started for error in steps.finish()]
    if errors:
        raise errors[0]


def release_all(journal: Journal, context: Context) -> list[NetwrapError]:
    """Release everything the journal holds, the last first; return the errors.

    One failure does not keep the others from being released. What was released, and is confirmed
    to be gone, leaves the journal; what was not stays in it for the next try.
    """
    errors: list[NetwrapError] = []
    started: list[tuple[Entry, _Steps]] = []
    try:
        entries = journal.live()
    except HostError as error:  # a journal of a newer format is left untouched
        return [error]
    for entry in reversed(entries):
        if isinstance(entry.resource, Unreadable):
            errors.append(_unreadable(entry.resource, journal))
            continue
        steps = _Steps(entry.resource, entry.resource.release(context, entry.facts))
        failed = steps.advance()
        if failed is None:
            started.append((entry, steps))
        else:
            errors.append(failed)
    for entry, steps in started:
        failures = steps.finish()
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


def _begin(resource: Resource, journal: Journal, context: Context) -> _Steps:
    """Record the intent, then start acquiring one resource. Raises `NetwrapError`."""
    number = journal.intend(resource)

    def remember(**facts: str) -> None:
        journal.note(number, **facts)

    context.acquiring(resource)
    steps = _Steps(resource, resource.acquire(context), context, remember)
    failed = steps.advance()
    if failed is not None:
        raise failed
    return steps


class _Steps:
    """The steps of acquiring or releasing one resource, some of which may be pending."""

    def __init__(
        self,
        resource: Resource,
        steps: Iterator[None],
        context: Context | None = None,
        remember: Callable[..., None] = lambda **_: None,
    ) -> None:
        """With a CONTEXT, REMEMBER gets the facts that a step notes about RESOURCE."""
        self._resource, self._steps = resource, steps
        self._context, self._remember = context, remember

    def finish(self) -> list[NetwrapError]:
        """Run what remains after the first step; return the failure, if any, in a list."""
        failed = self.advance()
        return [] if failed is None else [failed]

    def advance(self) -> NetwrapError | None:
        """Run one step; return the failure, if any, as an error that names the resource."""
        if self._context is None:
            return self._next()
        # A step may acquire other resources before it notes something about its own.
        before, self._context.remember = self._context.remember, self._remember
        try:
            return self._next()
        finally:
            self._context.remember = before

    def _next(self) -> NetwrapError | None:
        """Run one step; return the failure, if any."""
        try:
            next(self._steps, None)
        except NetwrapError as error:
            return error
        except OSError as error:
            return host_error(self._resource, error)
        except ImportError as error:
            return HostError(
                f"{_what(self._resource)}: {error}",
                "the program that started this run was removed: install it again, and run its gc",
            )
        except (KeyError, ValueError) as error:
            return HostError(
                f"{_what(self._resource)}: what its journal knows of it is damaged: {error}",
                "undo it by hand, and remove its line",
            )
        return None


def host_error(resource: Resource, error: OSError) -> HostError:
    """Return the kernel's error as a `HostError` that names the resource."""
    hint = linux.remedies.remedy(error, "-v shows what was being done")
    return HostError(f"{_what(resource)}: {error.strerror or error}", hint)


def _what(resource: Resource) -> str:
    """Return how an error names a resource: its kind and its first field."""
    fields = [str(value) for value in resource.__dict__.values()]
    return f"{resource.kind.lower()} {fields[0]}"
