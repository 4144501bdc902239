"""The order of the layers holds: who imports whom is read from the sources.

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

# From the lowest to the highest: each may import those before it, and nothing after it.
LAYERS = """
    lazy printable record record_text errors report model qemu linux uses realm state pci_state
    resources networks config passthrough runtime doctor cli
""".split()

# Layers that do no input or output may use this much of the standard library.
PURE_LAYERS = {"record", "record_text", "printable", "model", "qemu", "networks"}
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
    "psutil": "linux.processes",
    "pyroute2": "linux.netlink.link_stats",
    "sh": "linux.commands",
    "typer": "cli",
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
            # `from qemu_netwrap import linux` is about the layer, not about the package.
            for name in [f"{base}.{a.name}" for a in names] if base == ROOT else [base]:
                yield Import(name, node.lineno, types_only)
        case ast.Call() if literal := literal_import(node, package):
            yield Import(literal, node.lineno, types_only)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package, types_only=types_only)


def layer_of(module: str) -> str:
    """The layer of one of our modules; empty for the package itself, which imports nothing."""
    inner = [*module.split("."), ""][1]
    return "cli" if inner == "__main__" else inner


def is_or_under(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def is_pure(wanted: Import) -> bool:
    if wanted.name in PURE_TYPES:
        return wanted.types_only
    return wanted.name.split(".")[0] in PURE


def objection(module: str, wanted: Import) -> str | None:
    """Why MODULE may not import WANTED, if it may not."""
    layer = layer_of(module)
    top = wanted.name.split(".")[0]
    if top == ROOT:
        target = layer_of(wanted.name)
        if target in LAYERS and LAYERS.index(target) > LAYERS.index(layer):
            return f"{target} stands above {layer}: turn this import round, or move what is asked"
    elif top in sys.stdlib_module_names:
        if layer in PURE_LAYERS and not is_pure(wanted):
            return f"{layer} is pure"
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
        reasons: list[str | None] = [
            None if w.types_only or w.name == f"{ROOT}.lazy" else "the package itself loads nothing"
            for w in wanted
        ]
    elif layer_of(module) not in LAYERS:
        return [f"{module} is in no layer"]
    else:
        reasons = [objection(module, w) for w in wanted]
    return [
        f"{module}:{w.line} imports {w.name}: {reason}"
        for w, reason in zip(wanted, reasons, strict=True)
        if reason
    ]


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its name, with its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.parent if path.name == "__init__.py" else path.with_suffix("")
        yield ".".join(inside.relative_to(PACKAGE.parent).parts), path


def test_the_order_of_layers_holds() -> None:
    found, seen = set(), set()
    for module, path in sources():
        seen.add(layer_of(module))
        is_package = path.name == "__init__.py"
        found |= set(violations(module, path.read_text(), is_package=is_package))
    assert not found
    assert seen >= set(LAYERS), "a layer has no module: was the right folder read?"


def used_of_packages(tree: ast.AST, packages: set[str]) -> Iterator[str]:
    """Modules that are reached as attributes of a package that loads them on first use."""
    bound = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" in packages
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = bound.get(node.value.id)
            if package:
                yield f"{package}.{node.attr}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            inner = node.value
            if isinstance(inner.value, ast.Name) and inner.value.id in bound:
                yield f"{bound[inner.value.id]}.{inner.attr}.{node.attr}"


def listed(tree: ast.AST, package: str) -> set[str]:
    """Submodules that a package loads at once, or lists as such for type checkers."""
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == package
        for alias in node.names
    }


def test_packages_list_what_they_load_on_first_use() -> None:
    for module, path in sources():
        if path.name == "__init__.py":
            files = {each.stem for each in path.parent.glob("*.py")}
            folders = {each.parent.name for each in path.parent.glob("*/__init__.py")}
            expected = (files | folders) - {"__init__", "__main__"}
            assert listed(ast.parse(path.read_text()), module) == expected, module


def needs() -> dict[str, set[str]]:
    """Which modules of ours each of them knows of, in types too; packages' lists left out."""
    modules = dict(sources())
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        is_package = module in packages
        tree = ast.parse(path.read_text())
        names = set(used_of_packages(tree, packages))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not is_package:
                names |= {f"{node.module}.{alias.name}" for alias in node.names} | {
                    str(node.module)
                }
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found[module] = (names & set(modules)) - {module}
    return found


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules each of which can be reached from each other one (Tarjan, 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in edges[node]:
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            at = stack.index(node)
            group = set(stack[at:])
            del stack[at:]
            if len(group) > 1:
                found.append(group)

    for node in edges:
        if node not in order:
            visit(node)
    return found


def test_no_circles() -> None:
    assert [sorted(group) for group in circles(needs())] == []


def test_circles_are_seen() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str]()}
    assert circles(edges) == [{"a", "b", "c"}]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.network", "import qemu_netwrap.linux"),
        ("model.network", "from qemu_netwrap import linux"),
        ("model.network", "from qemu_netwrap.networks.nat import plan"),
        ("model.network", "from ..networks import nat"),
        ("model.network", "from .. import networks"),
        ("model.network", "import os"),
        ("model.network", "import os.path"),
        ("model.network", "def f():\n    import socket"),
        ("model.network", "if x:\n    pass\nelse:\n    import fcntl"),
        ("model.network", "import typing"),
        ("model.network", "from collections.abc import Iterator"),
        ("model.network", "if TYPE_CHECKING:\n    import subprocess"),
        ("model.network", "if TYPE_CHECKING:\n    from qemu_netwrap.runtime import keeper"),
        ("model.network", "if TYPE_CHECKING:\n    pass\nelse:\n    import typing"),
        ("model.network", "from .... import elsewhere"),
        ("networks.nat", "from qemu_netwrap.runtime import plan"),
        ("networks.nat", "import subprocess"),
        ("linux.child", "from qemu_netwrap.state import StateDir"),
        ("linux.child", "import importlib\nimportlib.import_module('qemu_netwrap.runtime.x')"),
        (
            "linux.child",
            "from importlib import import_module\nimport_module('..cli')",
        ),
        ("linux.child", "__import__('psutil')"),
        ("linux.child", "import psutil"),
        ("linux.child", "from sh import ip"),
        ("linux.child", "import yaml"),
        ("linux.processes", "import pyroute2"),
        ("linux.inspector", "from pyroute2 import IPRoute"),
        ("runtime.keeper", "from ..cli import render"),
        ("runtime.keeper", "def f():\n    def g():\n        import psutil"),
        ("runtime.keeper", "import qemu_netwrap.__main__"),
        ("runtime.keeper", "import typer"),
        ("cli.main", "import pyroute2.netlink"),
        ("strays", "pass"),
        ("attic.old", "import os"),
    ],
)
def test_catches(module: str, source: str) -> None:
    assert len(violations(f"{ROOT}.{module}", source)) == 1


def test_catches_in_packages() -> None:
    assert violations(ROOT, "import sys", is_package=True)
    assert violations(f"{ROOT}.model", "from ..linux import sysctl", is_package=True)
    assert not violations(f"{ROOT}.model", "from .network import Network", is_package=True)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.network", "from __future__ import annotations\nimport struct, zlib"),
        ("model.network", "from ..record import Record"),
        ("model.network", "from qemu_netwrap import __version__"),
        ("model.network", "if TYPE_CHECKING:\n    from collections.abc import Iterator"),
        ("model.network", "if typing.TYPE_CHECKING:\n    from typing import Any"),
        ("networks.nat", "from qemu_netwrap import record\nimport ipaddress"),
        ("linux.tun", "import _socket, fcntl, os\nfrom ..errors import HostError"),
        ("linux.netlink.link_stats", "def f():\n    from pyroute2 import IPRoute"),
        ("linux.processes", "import psutil"),
        ("linux.commands", "import sh"),
        ("runtime.keeper", "from qemu_netwrap.linux import child\nfrom ..networks import nat"),
        ("cli.main", "import typer\nfrom qemu_netwrap.runtime import keeper"),
        (
            "__main__",
            "from qemu_netwrap.runtime import launcher\nfrom qemu_netwrap.cli import main",
        ),
    ],
)
def test_allows(module: str, source: str) -> None:
    assert violations(f"{ROOT}.{module}", source) == []
