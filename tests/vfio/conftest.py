"""The nested machine that the tests of this folder share, and machines of others' own beside it.

A nested machine has one CPU. So tests that take one of their own have its scene begun early, on the
second CPU, and look at what it has shown when their turn comes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from lab import nested as lab_nested
from lab.nested import Nested
from vfio.shared import DEVICES, ready, unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future


@pytest.fixture(scope="session")
def nested(scenes: dict[str, Future[Any]]) -> Iterator[Nested]:
    """Yield the shared machine, while SCENES have begun."""
    del scenes
    with Nested(DEVICES) as machine:
        ready(machine)
        yield machine


@pytest.fixture
def machine(nested: Nested) -> Iterator[Nested]:
    """Yield the machine; what a test changes there must be as it was soon after."""
    with unchanged(nested):
        yield nested


@pytest.fixture(scope="session")
def scenes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """Begin the scenes that tests are marked with (`early`), one after the other."""
    if os.geteuid() != 0:
        pytest.skip("what is this machine's root for the nested one is read as root")
    lab_nested.fetch()
    marks = ((item.nodeid, item.get_closest_marker("early")) for item in request.session.items)
    with ThreadPoolExecutor(1) as pool:
        yield {name: pool.submit(mark.kwargs["scene"]) for name, mark in marks if mark}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def shown(request: pytest.FixtureRequest, scenes: dict[str, Future[Any]]) -> Any:  # noqa: ANN401 - what the scene returns
    """Return what the scene of this test has shown."""
    return scenes[request.node.nodeid].result()
