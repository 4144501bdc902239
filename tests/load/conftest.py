"""What the tests of load share: chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import chance as lab_chance

if TYPE_CHECKING:
    import random


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return chance that the seed decides."""
    return lab_chance.chance(request.node.name)
