"""Each kind of resource is one class, found by the name that journals have of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.resources import base
from qemu_netwrap.resources.base import KINDS, Resource, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[3] / "qemu_netwrap"
CONTRACTS = Path(__file__).parents[2] / "contract/test_resources.py"
VFIO = "resources.vfio"
# The state folder, which these two know, is read as they are loaded.
PLANNED = sorted(
    {place.partition(":")[0] for place in KINDS.values() if place.startswith("resources.")}
    - {VFIO, "resources.dhcp_hosts"}
)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_whole(name: str) -> None:
    kind = base.load(name)
    assert kind.kind == name
    assert kind.__doc__
    assert kind.explain is not Resource.explain, "it has no explanation"
    if kind.acquire is not Resource.acquire:
        assert kind.release is not Resource.release, "it can be acquired, and not released"
    for member in ("acquire", "release", "is_missing", "explain", "renewed", "insist"):
        assert getattr(kind, member).__doc__, member


def test_every_class_is_found_by_its_name() -> None:
    for name in KINDS:
        base.load(name)
    classes = {kind for kind in Resource.__subclasses__() if kind.__module__.startswith("qemu")}
    assert classes - {Unreadable} == set(map(base.load, KINDS))


def asked(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that ask whether a resource is of a kind."""
    classes = {base.load(name).__name__ for name in KINDS}
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("isinstance" | "issubclass"), [_, what]):
                options = what.elts if isinstance(what, ast.Tuple) else [what]
            case ast.Compare(ast.Call(ast.Name("type")), _, [*options]):
                pass
            case ast.Compare(ast.Attribute(attr="kind"), _, [ast.Constant(str(name)), *_]):
                options = [ast.Name(base.load(name).__name__)] if name in KINDS else []
            case ast.MatchClass(cls=what):
                options = [what]
            case _:
                continue
        names = {getattr(each, "attr", getattr(each, "id", "")) for each in options}
        if names & classes:
            yield node.lineno if isinstance(node, ast.expr | ast.pattern) else 0


def test_nobody_asks_what_kind_a_resource_is() -> None:
    """What is to be known of it is a property or a method of `Resource`, with a default.

    An `Unreadable` is no kind: it stands for a line that cannot be read.
    """
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in {"resources", "networks"}
        for line in asked(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("isinstance(resource, Bridge)", [1]),
        ("isinstance(e.resource, resources.sysctls.Switch)", [1]),
        ("isinstance(e.resource, (Text, Tap))", [1]),
        ("type(resource) is NetworkChains", [1]),
        ('entry.resource.kind == "Uplink"', [1]),
        ("match resource:\n    case links.Tap():\n        pass", [2]),
        ("isinstance(resource, Unreadable)", []),
        ('link.kind == "tun"', []),
    ],
)
def test_such_a_question_is_seen(text: str, lines: list[int]) -> None:
    assert list(asked(ast.parse(text))) == lines


def test_the_names_in_journals_stay() -> None:
    """Journals of runs that live, by whatever version, have them: none may go or be another's."""
    assert set(KINDS) >= {
        *("Bridge", "Uplink", "Address", "DeviceSetting", "Forwarding", "Rules", "Dnsmasq"),
        *("Membership", "HostName", "AnyClient", "Tap", "Plug", "Switch", "Forwards", "MacFilter"),
        *("IpFilter", "IptablesAccepts", "NftAccepts", "FirewalldZone", "Unmanaged", "Remark"),
        *("Guard", "Lookout", "PciBinding", "VirtualFunctions", "VfSettings", "GroupNode"),
    }


def test_no_kind_is_in_a_table_elsewhere() -> None:
    """What is asked of a kind is asked of its class."""
    tables = re.compile(r"dict\[type\[(\w+\.)?Resource\]|\[type\((each|entry|resource)\b")
    found = [path for path in PACKAGE.rglob("*.py") if tables.search(path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "name", [n for n, place in KINDS.items() if place.partition(":")[0] != VFIO]
)
def test_a_kind_has_a_contract(name: str) -> None:
    """What passes devices through has its scenes in tests/vfio."""
    # See test_sharing; of a remark nothing is made; a relay is only in a user's realm: test_users.
    if name not in {"Membership", "Remark", "PortRelay"}:
        assert f"{base.load(name).__name__}(" in CONTRACTS.read_text("utf-8")


@pytest.mark.parametrize("module", [*PLANNED, "networks.nat", "networks.host_only"])
def test_what_is_planned_loads_nothing_that_acts(module: str) -> None:
    """Kinds of networks are data to those who plan; what acts is loaded when one is acquired."""
    code = f"import sys, qemu_netwrap.{module}; print(*sys.modules)"
    words = (sys.executable, "-I", "-c", code)
    loaded = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    assert [name for name in loaded if name.startswith("qemu_netwrap.linux.")] == []
