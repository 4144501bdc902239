"""What the tests of the contract share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from contract.acting import Actor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.netns import Host


@pytest.fixture
def actors(host: Host) -> Iterator[Callable[[], Actor]]:
    """Return a function that starts one more process which acts on `host`."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Actor(host))
