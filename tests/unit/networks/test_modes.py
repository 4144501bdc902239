"""A network mode is its driver: nobody else asks which one a network has."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.model.network import MODES, Network, traits
from qemu_netwrap.networks.base import NetworkDriver, driver

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[3] / "qemu_netwrap"
REGISTRY = "model/network.py"
CONSTANTS = {"BRIDGE", "NAT", "HOST_ONLY"}


def named(node: ast.AST) -> str:
    """The last part of a name."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def parts(node: ast.expr) -> list[ast.expr]:
    """What a tuple, list or set has in it, or the one thing."""
    return node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]


def asked(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that compare a mode with one by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [part for side in (node.left, *node.comparators) for part in parts(side)]
            has_mode = any(named(side) == "mode" for side in sides)
            names = any(
                isinstance(side, ast.Constant) and side.value in {*MODES, ""} for side in sides
            )
            if any(named(side) in CONSTANTS for side in sides) or (has_mode and names):
                yield node.lineno
        elif isinstance(node, ast.Match) and named(node.subject) == "mode":
            yield node.lineno


def test_no_mode_is_asked_for_by_name() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / REGISTRY
        for line in asked(ast.parse(path.read_text("utf-8")))
    ]
    assert found == [], "ask a trait (model.network.Mode), or a method of the driver"


@pytest.mark.parametrize(
    "text",
    [
        "network.mode == NAT",
        "info.mode != model.network.BRIDGE",
        'network.mode in ("nat", other)',
        "network.mode not in (BRIDGE, info.mode)",
        'mode == "bridge"',
        'match network.mode:\n    case "nat":\n        pass',
    ],
)
def test_it_would_be_seen(text: str) -> None:
    assert list(asked(ast.parse(text))) == [1]


@pytest.mark.parametrize("text", ['net.type == "bridge"', "a.mode != b.mode", "mode in MODES"])
def test_what_is_no_such_question(text: str) -> None:
    assert list(asked(ast.parse(text))) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_whole(mode: str) -> None:
    """Its driver is found, and its traits say of it what the driver does."""
    made, known = driver(mode), MODES[mode]
    own = type(made)
    assert own.__module__ == f"qemu_netwrap.networks.{known.driver}"
    assert own.__doc__
    assert {"mode", "bridge"} <= set(made.readers())
    is_own = {
        name: getattr(own, name) is not getattr(NetworkDriver, name)
        for name in ("network_resources", "nic_resources", "nic_filters", "attachment")
    }
    assert is_own.pop("network_resources")
    assert known.has_plain_nics is not any(is_own.values())
    follows = own.follow_host is not NetworkDriver.follow_host
    assert known.has_way_out is follows
    needs = made.needs(Network("n", mode, "b", uplink="eth0"))
    assert bool(needs.places) is known.is_routed
    assert bool(needs.uplink) is known.takes_uplink


def test_a_mode_of_another_version() -> None:
    """Nothing is done for it, and it is no way out for others."""
    known = traits("teleport")
    assert known.is_routed
    assert not any((known.has_way_out, known.is_plain, known.is_type))
