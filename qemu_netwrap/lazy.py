"""Submodules that load on first use: the only way in which this package loads lazily.

A package sets `__getattr__ = lazy.submodules(__name__)` (PEP 562) and lists its submodules for type
checkers. A module that needs one has `from qemu_netwrap import linux` at the top and `linux.ports`
in the code: the submodule loads there, once, and is a plain attribute of the package afterwards.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """Return a module-level `__getattr__` that imports a submodule of PACKAGE.

    It raises `AttributeError` for a name that is no submodule. `__import__` is used because
    `importlib` itself costs a launch 0.8 ms.
    """

    def load(name: str) -> ModuleType:
        full = f"{package}.{name}"
        try:
            __import__(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            raise AttributeError(f"module {package} has no attribute {name!r}") from None
        return sys.modules[full]

    return load
