"""hatchling's hook: the version that tools/version.py tells is written into the package.

A launch reads it there: to ask importlib.metadata would cost it milliseconds.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE: Final = "qemu_netwrap/__init__.py"


class Stamp(BuildHookInterface[Any]):
    """Put a module with the version in it into a wheel, in place of the tree's."""

    _folder = ""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the module for a wheel. VERSION is the kind of wheel: an editable one has none."""
        if version == "editable":
            return
        text = Path(self.root, _MODULE).read_text("utf-8")
        line = f'__version__ = "{self.metadata.version}"'
        stamped, count = re.subn("^__version__ = .*$", line, text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"{_MODULE}: expected one line with __version__, found {count}")
        self._folder = tempfile.mkdtemp(prefix="qemu-netwrap-build-")
        module = Path(self._folder, "__init__.py")
        module.write_text(stamped, "utf-8")
        module.chmod(0o644)
        build_data["force_include"][str(module)] = _MODULE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the module again: it is in the wheel."""
        if self._folder:
            shutil.rmtree(self._folder)
