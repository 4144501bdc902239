"""A copy of the installed package in a venv of its own, which a test may change or remove."""

from __future__ import annotations

import shutil
import sysconfig
import venv
from importlib import metadata
from pathlib import Path
from typing import Final, Self

from qemu_netwrap.resources.journal import FORMAT
from qemu_netwrap.runtime import kept_code, waiter

PACKAGE: Final = "qemu_netwrap"


class Installation:
    """A copy of the package in a venv."""

    def __init__(self, folder: Path) -> None:
        """Make it in FOLDER, without the libraries that all commands but a launch need."""
        venv.create(folder, symlinks=True)
        self.folder = folder
        (site,) = folder.glob("lib/python*/site-packages")
        self.package = site / PACKAGE
        shutil.copytree(Path(sysconfig.get_path("purelib"), PACKAGE), self.package)

    def with_libraries(self) -> Self:
        """Give it those of the tests' own installation: the copy comes first (site.addsitedir)."""
        (self.package.parent / "others.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
        return self

    def command(self, *words: str) -> tuple[str, ...]:
        """Return the command line by which this copy is run."""
        return self.program("main", *words)

    def program(self, name: str, *words: str) -> tuple[str, ...]:
        """Return the same for another of the package's programs."""
        start = f"from qemu_netwrap.__main__ import {name}; {name}()"
        return (str(self.folder / "bin" / "python3"), "-I", "-c", start, *words)

    def upgrade(self) -> None:
        """Replace each module by one that fits no other."""
        shutil.rmtree(self.package / "__pycache__", ignore_errors=True)
        for module in self.package.rglob("*.py"):
            module.write_text("raise SystemExit('another version')\n", "utf-8")

    def remove(self) -> None:
        """Remove the venv with the package in it."""
        shutil.rmtree(self.folder)

    def become(self, version: str, journals: int, words: int) -> Self:
        """Make it another version, whose journals and keeper's words have formats of their own."""
        ours = metadata.version("qemu-netwrap")
        for file, old, new in (
            ("__init__", f'__version__ = "{ours}"', f'__version__ = "{version}"'),
            ("resources/journal", f"\nFORMAT = {FORMAT} ", f"\nFORMAT = {journals} "),
            ("runtime/kept_code", f"\nFORMAT = {kept_code.FORMAT} ", f"\nFORMAT = {words} "),
            ("runtime/waiter", waiter.FORMATS[-1], f"format={words}"),
        ):
            module = self.package / f"{file}.py"
            text = module.read_text("utf-8")
            assert old in text, file
            module.write_text(text.replace(old, new), "utf-8")
        return self.with_libraries()
