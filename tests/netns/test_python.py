"""Which Python code runs: none of the current folder's, none of a build environment's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.tool import COMMAND, QEMU

if TYPE_CHECKING:
    from lab.netns import Host

# What the launcher and its commands import, and what Python imports for `-m`, contextlib, aside.
MODULES = ("typer", "psutil", "json", "struct", "_struct", "select", "qemu_netwrap", "typing")
SCRIPTS = ("qemu-netwrap", "qemu-ifup", "qemu-ifdown", "qemu-netwrap-bridge-helper")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a folder with modules that say so when they are run."""
    for name in (*MODULES, "contextlib"):
        (tmp_path / f"{name}.py").write_text("print('foreign code', flush=True)\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize("words", [("--version",), ("config", "show"), ("--", QEMU, "-version")])
def test_a_build_environments_python(host: Host, foreign: Path, words: tuple[str, ...]) -> None:
    plain = host.run(COMMAND, *words)
    for env in ({"PYTHONPATH": str(foreign)}, {"PYTHONHOME": sys.base_prefix},
                {"PYTHONWARNINGS": "error"}):  # fmt: skip
        done = host.run(COMMAND, *words, env=env)
        assert (done.stdout, done.stderr) == (plain.stdout, plain.stderr)


def test_qemu_gets_these_variables(host: Host, foreign: Path) -> None:
    env = {"PYTHONPATH": str(foreign)}
    assert host.run(COMMAND, "/usr/bin/printenv", "PYTHONPATH", env=env).stdout == f"{foreign}\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script(host: Host, foreign: Path, script: str) -> None:
    path = str(Path(COMMAND).with_name(script))
    done = host.run(path, env={"PYTHONPATH": str(foreign)}, check=False)
    assert "foreign code" not in done.stdout
    assert "qemu-netwrap" in done.stdout + done.stderr


def test_a_shim(host: Host, foreign: Path, tmp_path: Path) -> None:
    shim = tmp_path / QEMU
    shim.symlink_to(COMMAND)
    plain = host.run(QEMU, "-version").stdout
    assert host.run(str(shim), "-version", env={"PYTHONPATH": str(foreign)}).stdout == plain


def test_the_current_folder(host: Host, foreign: Path) -> None:
    """The script never imports from it; `-m` no more than Python itself does before: contextlib."""
    assert host.run(COMMAND, "config", "show", cwd=foreign).stdout.startswith("# ")
    (foreign / "contextlib.py").unlink()
    (foreign / "qemu_netwrap.py").unlink()
    done = host.run(sys.executable, "-m", "qemu_netwrap", "config", "show", cwd=foreign)
    assert "foreign code" not in done.stdout
