"""The floors of the code hold: who imports whom is read from the sources, not from a promise.

Read are `import` and `from` wherever they stand, and `import_module` and `__import__` of a literal.
An import for type checkers alone counts too: what a module knows about is what it depends on.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "qemu_netwrap"
ROOT = PACKAGE.name

# Each floor, and the floors it may import besides itself.
FLOORS = {
    "core": set[str](),
    "planning": {"core"},
    "host": {"core"},
    "life": {"core", "planning", "host"},
    "face": {"core", "planning", "host", "life"},
}

# Floors that do no input or output may use this much of the standard library.
PURE_FLOORS = {"core", "planning"}
PURE = set(
    """
    __future__ base64 binascii bisect collections copy difflib enum errno functools hashlib heapq
    ipaddress itertools json math operator re shlex string struct textwrap tomllib zlib
    """.split()
)
# And this much for type checkers alone: loading it would cost every launch.
PURE_TYPES = {"collections.abc", "types", "typing"}

# A library is imported by one module, or under one folder, and nowhere else.
HOMES = {
    "psutil": "host.procs",
    "pyroute2": "host.inspect",
    "sh": "host.commands",
    "typer": "face",
}


class Import(NamedTuple):
    name: str  # in full
    line: int
    types_only: bool


def absolute(name: str, level: int, package: str) -> str:
    """NAME, imported in PACKAGE with LEVEL dots before it, in full."""
    if level == 0:
        return name
    parents = package.split(".")
    if level > len(parents):
        return "." * level + name  # out of the tree: nothing will allow it
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [name])])


def literal_import(call: ast.Call, package: str) -> str | None:
    """What `import_module("...")` or `__import__("...")` imports, if that is what CALL is."""
    func = call.func
    called = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    match call.args:
        case [ast.Constant(value=str(text)), *_] if called in {"import_module", "__import__"}:
            name = text.lstrip(".")
            return absolute(name, len(text) - len(name), package)
    return None


def imports(node: ast.AST, package: str, *, types_only: bool = False) -> Iterator[Import]:
    """All imports under NODE, a part of a module in PACKAGE."""
    match node:
        case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for statement in node.body:
                yield from imports(statement, package, types_only=True)
            for statement in node.orelse:
                yield from imports(statement, package, types_only=types_only)
            return
        case ast.Import(names):
            for alias in names:
                yield Import(alias.name, node.lineno, types_only)
        case ast.ImportFrom(module, names, level):
            base = absolute(module or "", level, package)
            # `from qemu_netwrap import host` is about the floor, not about the package.
            for name in [f"{base}.{a.name}" for a in names] if base == ROOT else [base]:
                yield Import(name, node.lineno, types_only)
        case ast.Call() if literal := literal_import(node, package):
            yield Import(literal, node.lineno, types_only)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package, types_only=types_only)


def floor_of(module: str) -> str:
    """The floor of one of our modules; empty for the package itself, which imports nothing."""
    inner = [*module.split("."), ""][1]
    return "face" if inner == "__main__" else inner


def is_or_under(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def is_pure(wanted: Import) -> bool:
    if wanted.name in PURE_TYPES:
        return wanted.types_only
    return wanted.name.split(".")[0] in PURE


def objection(module: str, wanted: Import) -> str | None:
    """Why MODULE may not import WANTED, if it may not."""
    floor = floor_of(module)
    top = wanted.name.split(".")[0]
    if top == ROOT:
        target = floor_of(wanted.name)
        if target in FLOORS and target not in FLOORS[floor] | {floor}:
            return f"{floor} may not import {target}"
    elif top in sys.stdlib_module_names:
        if floor in PURE_FLOORS and not is_pure(wanted):
            return f"{floor} is pure"
    elif top not in HOMES:
        return "neither ours, nor the standard library's, nor a dependency"
    elif not is_or_under(module, f"{ROOT}.{HOMES[top]}"):
        return f"only {ROOT}.{HOMES[top]} may"
    return None


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What MODULE's SOURCE imports and may not, one line each."""
    package = module if is_package else module.rpartition(".")[0]
    wanted = list(imports(ast.parse(source), package))
    if module == ROOT:
        reasons: list[str | None] = ["the package itself imports nothing"] * len(wanted)
    elif floor_of(module) not in FLOORS:
        return [f"{module} is on no floor"]
    else:
        reasons = [objection(module, w) for w in wanted]
    return [
        f"{module}:{w.line} imports {w.name}: {reason}"
        for w, reason in zip(wanted, reasons, strict=True)
        if reason
    ]


def test_floors_hold() -> None:
    found, seen = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        is_package = path.name == "__init__.py"
        inside = path.parent if is_package else path.with_suffix("")
        module = ".".join(inside.relative_to(PACKAGE.parent).parts)
        seen.add(floor_of(module))
        found += violations(module, path.read_text(), is_package=is_package)
    assert found == []
    assert seen >= set(FLOORS), "a floor has no module: was the right folder read?"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.model", "import qemu_netwrap.host"),
        ("core.model", "from qemu_netwrap import host"),
        ("core.model", "from qemu_netwrap.planning.nat import plan"),
        ("core.model", "from ..planning import nat"),
        ("core.model", "from .. import planning"),
        ("core.model", "import os"),
        ("core.model", "import os.path"),
        ("core.model", "def f():\n    import socket"),
        ("core.model", "if x:\n    pass\nelse:\n    import fcntl"),
        ("core.model", "import typing"),
        ("core.model", "from collections.abc import Iterator"),
        ("core.model", "if TYPE_CHECKING:\n    import subprocess"),
        ("core.model", "if TYPE_CHECKING:\n    from qemu_netwrap.life import keeper"),
        ("core.model", "if TYPE_CHECKING:\n    pass\nelse:\n    import typing"),
        ("core.model", "from .... import elsewhere"),
        ("planning.nat", "from qemu_netwrap.host import probe"),
        ("planning.nat", "import subprocess"),
        ("host.spawn", "from qemu_netwrap.planning import plan"),
        ("host.spawn", "import importlib\nimportlib.import_module('qemu_netwrap.life.journal')"),
        ("host.spawn", "from importlib import import_module\nimport_module('..life', __package__)"),
        ("host.spawn", "__import__('psutil')"),
        ("host.spawn", "import psutil"),
        ("host.spawn", "from sh import ip"),
        ("host.spawn", "import yaml"),
        ("host.procs", "import pyroute2"),
        ("host.inspector", "from pyroute2 import IPRoute"),
        ("life.keeper", "from ..face import render"),
        ("life.keeper", "def f():\n    def g():\n        import psutil"),
        ("life.keeper", "import qemu_netwrap.__main__"),
        ("life.keeper", "import typer"),
        ("__main__", "import typer"),
        ("face.cli", "import pyroute2.netlink"),
        ("strays", "pass"),
        ("attic.old", "import os"),
    ],
)
def test_catches(module: str, source: str) -> None:
    assert len(violations(f"{ROOT}.{module}", source)) == 1


def test_catches_in_packages() -> None:
    assert violations(ROOT, "import sys", is_package=True)
    assert violations(f"{ROOT}.core", "from ..host import probe", is_package=True)
    assert not violations(f"{ROOT}.core", "from .record import Record", is_package=True)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.model", "from __future__ import annotations\nimport struct, zlib"),
        ("core.model", "from .record import Record"),
        ("core.model", "from qemu_netwrap import __version__"),
        ("core.model", "if TYPE_CHECKING:\n    from collections.abc import Iterator"),
        ("core.model", "if typing.TYPE_CHECKING:\n    from typing import Any"),
        ("planning.nat", "from qemu_netwrap.core import record\nimport ipaddress"),
        ("host.tap", "import _socket, fcntl, os\nfrom ..core.errors import HostError"),
        ("host.inspect", "def f():\n    from pyroute2 import IPRoute"),
        ("host.procs", "import psutil"),
        ("host.commands", "import sh"),
        ("life.keeper", "from qemu_netwrap.host import spawn\nfrom ..planning import plan"),
        ("face.cli", "import typer\nfrom qemu_netwrap.life import keeper"),
        ("__main__", "from qemu_netwrap.life import launch\nfrom qemu_netwrap.face import cli"),
    ],
)
def test_allows(module: str, source: str) -> None:
    assert violations(f"{ROOT}.{module}", source) == []
