"""A copy of the tree as a build has it, and packages for a pip without the network."""

from __future__ import annotations

import shutil
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.tags import sys_tags

ROOT: Final = Path(__file__).parents[2]
_FILES: Final = (
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", ".gitignore"),
    *(".gitattributes", ".git_archival.txt"),
)
_FOLDERS: Final = ("qemu_netwrap", "scripts", "completions", "docs/man", "tools")
_OF_THE_INSTALLER: Final = ("INSTALLER", "REQUESTED", "direct_url.json")


def copy(folder: Path) -> Path:
    """Copy into FOLDER, which is made, what a build reads of the tree: no .git."""
    folder.mkdir()
    for name in _FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in _FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def pack_wheels(folder: Path, *names: str) -> None:
    """Make wheels in FOLDER of installed packages, and of all that they need."""
    wanted = list(names)
    packed = set()
    while wanted:
        found = metadata.distribution(wanted.pop())
        if found.name in packed:
            continue
        packed.add(found.name)
        _pack(folder, found)
        needs = [Requirement(text) for text in found.requires or ()]
        wanted += [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]


def _pack(folder: Path, package: metadata.Distribution) -> None:
    """Make the wheel of an installed package, without the programs, which pip makes anew."""
    facts = (package.read_text("WHEEL") or "").splitlines()
    fits = {line.removeprefix("Tag: ") for line in facts} & set(map(str, sys_tags()))
    name = f"{package.name.replace('-', '_')}-{package.version}-{min(fits)}.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for file in package.files or ():
            is_part = ".." not in file.parts and "__pycache__" not in file.parts
            if is_part and file.name not in _OF_THE_INSTALLER:
                wheel.write(str(package.locate_file(file)), str(file))
