"""The version of a build: by tag, by commits, without git, and in a checkout of another user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Final

import pytest

from lab import checkout

if TYPE_CHECKING:
    from pathlib import Path

_ASK: Final = "import runpy, sys; print(runpy.run_path(sys.argv[1])['version']())"
# git's own settings, of the machine or of the user, are not the test's.
_ENV: Final = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nowhere"}


def git(tree: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*")
    command = ("git", "-C", str(tree), *who, *words)
    return subprocess.run(command, env=_ENV, check=True, stdout=subprocess.PIPE, text=True).stdout


def version(tree: Path, path: str | None = None) -> str:
    command = (sys.executable, "-IB", "-c", _ASK, str(tree / "tools" / "version.py"))
    env = {**_ENV, "PATH": _ENV["PATH"] if path is None else path}
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def commit(tree: Path) -> str:
    """Commit something; return the commit's number as a version has it."""
    git(tree, "commit", "-q", "--allow-empty", "-m", "a change")
    return f"g{git(tree, 'rev-parse', '--short=8', 'HEAD').strip()}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a checkout of one commit, with what a build reads."""
    made = checkout.copy(tmp_path / "tree")
    text = (made / "CHANGELOG.md").read_text("utf-8")
    (made / "CHANGELOG.md").write_text(text.partition("\n## [Unreleased]")[0], "utf-8")
    git(made, "init", "-q")
    git(made, "add", "-A")
    commit(made)
    return made


def unpacked(tree: Path, folder: Path) -> Path:
    folder.mkdir()
    command = ("tar", "-x", "-C", str(folder))
    archive = ("git", "-C", str(tree), "archive", "HEAD")
    made = subprocess.run(archive, env=_ENV, check=True, stdout=subprocess.PIPE)
    subprocess.run(command, input=made.stdout, check=True)
    return folder


def test_by_tag(tree: Path) -> None:
    git(tree, "tag", "-a", "v0.2.0", "-m", "0.2.0")
    assert version(tree) == "0.2.0"
    commit(tree)
    second = commit(tree)
    git(tree, "tag", "v0.3.0rc1")
    git(tree, "tag", "vanilla")
    assert version(tree) == f"0.3.0.dev2+{second}"


def test_without_a_tag(tree: Path, tmp_path: Path) -> None:
    second = commit(tree)
    assert version(tree) == f"0.2.0.dev2+{second}"
    cut = tmp_path / "cut"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tree}", str(cut))
    assert version(cut) == f"0.2.0.dev0+{second}"
    with (tree / "CHANGELOG.md").open("a", encoding="utf-8") as changes:
        changes.write("\n## [Unreleased]\n\n## [1.4.2] - 2026-01-01\n\n## [1.4.1] - 2025-01-01\n")
    assert version(tree) == f"1.5.0.dev2+{second}"


def test_an_archive(tree: Path, tmp_path: Path) -> None:
    number = git(tree, "rev-parse", "HEAD")[:8]
    # Each is unpacked within a checkout that is not its own.
    assert version(unpacked(tree, tree / "a")) == f"0.2.0.dev0+g{number}"
    git(tree, "tag", "-a", "v0.2.0", "-m", "0.2.0")
    assert version(unpacked(tree, tree / "b")) == "0.2.0"
    third = commit(tree)
    assert version(unpacked(tree, tree / "c")).startswith(f"0.3.0.dev1+{third[:8]}")


def test_nothing_to_go_by(tree: Path) -> None:
    assert version(tree, path="/nowhere") == "0.2.0.dev0"
    shutil.rmtree(tree / ".git")
    assert version(tree) == "0.2.0.dev0"
    git(tree, "init", "-q")
    assert version(tree) == "0.2.0.dev0"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_users_checkout(tree: Path) -> None:
    before = version(tree)
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 12345, 12345)
    index = (tree / ".git" / "index").stat()
    assert version(tree) == before
    assert (tree / ".git" / "index").stat() == index
    assert [path for path in tree.rglob("*") if path.stat().st_uid == 0] == []


def test_a_wheel_and_an_sdist_have_it(tree: Path, tmp_path: Path) -> None:
    """A wheel of an sdist, which has no git, has the version of the sdist."""
    git(tree, "tag", "-a", "v7.8.9", "-m", "7.8.9")
    build = (sys.executable, "-Im", "hatchling", "build")
    subprocess.run((*build, "-t", "sdist"), cwd=tree, check=True, capture_output=True)
    subprocess.run(
        ("tar", "-xf", str(tree / "dist" / "qemu_netwrap-7.8.9.tar.gz")), cwd=tmp_path, check=True
    )
    sdist = tmp_path / "qemu_netwrap-7.8.9"
    subprocess.run((*build, "-t", "wheel"), cwd=sdist, check=True, capture_output=True)
    wheel = zipfile.ZipFile(sdist / "dist" / "qemu_netwrap-7.8.9-py3-none-any.whl")
    names = wheel.namelist()
    assert len(names) == len(set(names))
    assert '\n__version__ = "7.8.9"\n' in wheel.read("qemu_netwrap/__init__.py").decode()
    assert "\nVersion: 7.8.9\n" in wheel.read("qemu_netwrap-7.8.9.dist-info/METADATA").decode()
