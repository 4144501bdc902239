"""The tree as a whole: what is tested is what is there, and it is fit to be published."""

from __future__ import annotations

import fnmatch
import os
import re
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tree() -> list[Path]:
    """All files but those .gitignore names: in an unpacked archive just as in a checkout."""
    ignored = [".git", *(ROOT / ".gitignore").read_text().replace("/", "").split()]
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [n for n in folders if not any(fnmatch.fnmatch(n, i) for i in ignored)]
        found += [Path(folder, n) for n in files if not any(fnmatch.fnmatch(n, i) for i in ignored)]
    return found


def python_files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def test_installed_package_is_the_tree() -> None:
    wheel = metadata.distribution("qemu-netwrap")
    installed = python_files(Path(str(wheel.locate_file("qemu_netwrap"))))
    ours = python_files(ROOT / "qemu_netwrap")
    stamp = f'__version__ = "{wheel.version}"'
    # tools/build_hook.py puts the version in place of that line.
    ours["__init__.py"] = re.sub("(?m)^__version__ = .*$", stamp, ours["__init__.py"])
    assert installed == ours, "stale: run `make setup`"


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.})-])/(?:root|work)/",  # a path of the machine it was written on
        r"index[-_]url",  # where packages come from is the machine's to say
        r"^(?:<{7}|>{7}) ",  # a merge left half done
    ],
)
def test_no_file_mentions(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tree()
        for match in re.finditer(pattern, path.read_text(errors="replace"), re.MULTILINE)
    ]
    assert found == []


def test_scripts_are_executable() -> None:
    scripts = [path for path in tree() if path.read_bytes().startswith(b"#!")]
    assert ROOT / "tools" / "need" in scripts
    assert [path for path in scripts if not os.access(path, os.X_OK)] == []


def test_changelog_leads_to_this_version() -> None:
    """Unreleased first, then releases in falling order, none later than the version at hand."""
    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    unreleased, *releases = headings
    ours, _, _ = metadata.version("qemu-netwrap").partition(".dev")
    versions = [tuple(map(int, text.split("."))) for text in [ours, *releases]]
    assert unreleased == "Unreleased"
    assert versions == sorted(versions, reverse=True)
