"""`make install` and `make uninstall`: the program with a private Python environment.

Why a venv: docs/decisions/0031-make-install-makes-a-private-venv.md.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
NAME: Final = "qemu-netwrap"
MANIFEST: Final = "manifest"
# -I: nothing of the current folder, the environment or the user's site-packages. -B: no compiled
# modules, for all are there, and the folder may belong to a user whom root's would be in the way.
FLAGS: Final = "-IB"


class Place:
    """Where an installation goes: below PREFIX when it runs, below DESTDIR/PREFIX until then."""

    def __init__(self, destdir: str, prefix: str) -> None:
        """Raise `SystemExit` unless PREFIX is an absolute path, without blanks for the kernel."""
        if not prefix.startswith("/") or len(prefix.split()) != 1:
            # The first line of a script takes no blank in the interpreter's path (execve(2)).
            sys.exit(f"install: PREFIX={prefix}: expected an absolute path without blanks")
        self.prefix = Path(os.path.normpath(prefix))
        self.top = Path(os.path.abspath(destdir)) if destdir else Path("/")

    @property
    def private(self) -> Path:
        """The folder of the environment, as the installed program sees it."""
        return self.prefix / "lib" / NAME

    def at(self, path: Path) -> Path:
        """Return where PATH, as the installed program sees it, is written to."""
        return self.top / path.relative_to("/")

    @property
    def manifest(self) -> Path:
        """The list of what was installed: paths below the top, a line each, folders with a /."""
        return self.at(self.private / MANIFEST)


def install(place: Place) -> None:
    """Build the program and put it in its place; what an earlier version had beside it goes."""
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-install-") as folder:
        stage = Place(f"{folder}/stage", str(place.prefix))
        try:
            _build(Path(folder, "pip"), stage)
        except subprocess.CalledProcessError as error:
            sys.exit(f"install: failed: {' '.join(map(str, error.cmd))}")
        _arrange(stage)
        before = _read(place)
        made = _put(stage, place)
    kept = {line for line in before if line.endswith("/")}
    _remove(place, [line for line in before if line not in made and line not in kept])
    lines = sorted({*made, *kept, str(place.manifest.relative_to(place.top))})
    _write(
        place.manifest, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    )


def uninstall(place: Place) -> None:
    """Remove what `install` has put there, and the folders that it has made."""
    lines = _read(place)
    if not lines:
        sys.exit(f"uninstall: {place.manifest}: not there, so nothing was installed below it")
    # An interpreter with other flags (-O) has its own compiled modules beside the modules.
    for cache in [*place.at(place.private).rglob("__pycache__")]:
        shutil.rmtree(cache)
    _remove(place, lines)


def _build(pip: Path, stage: Place) -> None:
    """Make the environment, and install the package with what it needs into it.

    A Python without pip, as Debian's is by itself, gets one in the folder PIP.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing of root's in the checkout
    venv = stage.at(stage.private)
    make_venv = (os.path.realpath(sys.executable), "-Im", "venv")
    python = Path(sys.executable)
    if not importlib.util.find_spec("pip"):
        python = pip / "bin" / "python3"
        made = subprocess.run((*make_venv, str(pip)), env=env, check=False, capture_output=True)
        if made.returncode:
            os.write(2, made.stdout + made.stderr)
            sys.exit("install: Python's venv is missing; Debian: apt install python3-venv")
    subprocess.run((*make_venv, "--without-pip", str(venv)), env=env, check=True)
    quiet = ("-q", "--disable-pip-version-check", "--no-input", f"--python={venv}/bin/python3")
    command = (python, "-Im", "pip", *quiet, "install", "--no-compile", ROOT)
    subprocess.run(command, env=env, check=True)


def _arrange(stage: Place) -> None:
    """Make of the environment what is to be installed, with programs and texts outside of it."""
    venv = stage.at(stage.private)
    outside = stage.at(stage.prefix)
    programs = outside / "bin"
    programs.mkdir(parents=True)
    for script in sorted(Path(ROOT, "scripts").iterdir()):
        _, _, text = script.read_text("utf-8").partition("\n")
        program = programs / script.name
        program.write_text(f"#!{stage.private}/bin/python3 {FLAGS}\n{text}", "utf-8")
        program.chmod(0o755)
    shutil.move(venv / "share", outside / "share")
    licence = outside / "share" / "doc" / NAME / "LICENSE"
    licence.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / "LICENSE", licence)
    # The venv's own programs are nobody's to call, and name the folder that it was made in.
    shutil.rmtree(venv / "bin")
    shutil.rmtree(venv / "include", ignore_errors=True)
    (venv / "bin").mkdir()
    python = os.path.realpath(sys.executable)
    (venv / "bin" / "python3").symlink_to(python)
    (venv / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n", "utf-8"
    )
    compileall.compile_dir(venv / "lib", quiet=2, stripdir=stage.top, prependdir="/", maxlevels=50)


def _put(stage: Place, place: Place) -> set[str]:
    """Copy all that is staged to its place. Return it as the manifest names it.

    A file is replaced by a new one, at once, so that a program which runs keeps what it has open.
    Folders that are there already are none of the installation's.
    """
    made = set()
    for folder, folders, files in os.walk(stage.top):
        here = place.top / os.path.relpath(folder, stage.top)
        for absent in [each for each in reversed((here, *here.parents)) if not each.exists()]:
            absent.mkdir()
            absent.chmod(0o755)
            if absent.is_relative_to(place.top) and absent != place.top:
                made.add(f"{absent.relative_to(place.top)}/")
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            _replace(Path(folder, name), here / name)
            made.add(str((here / name).relative_to(place.top)))
    return made


def _replace(source: Path, target: Path) -> None:
    """Put a copy of SOURCE, with its time stamp, which compiled modules record, at TARGET."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    shutil.copy2(source, new, follow_symlinks=False)
    if not new.is_symlink():
        new.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        if os.geteuid() == 0:
            os.chown(new, 0, 0)
    new.replace(target)


def _write(target: Path, data: bytes) -> None:
    """Write a file that all may read."""
    target.write_bytes(data)
    target.chmod(0o644)


def _read(place: Place) -> list[str]:
    """Return the lines of the manifest; none if there is none. Raises `SystemExit`."""
    try:
        lines = place.manifest.read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        if not _is_part(place, line):
            sys.exit(f"install: {place.manifest}: {line}: not a path of an installation")
    return lines


def _remove(place: Place, lines: list[str]) -> None:
    """Remove files, then folders that are empty, the innermost first."""
    for line in lines:
        if not line.endswith("/"):
            (place.top / line).unlink(missing_ok=True)
    for line in sorted(lines, key=len, reverse=True):
        if line.endswith("/"):
            try:
                (place.top / line).rmdir()
            except OSError:
                pass  # something else is in it, or it is gone


def _is_part(place: Place, line: str) -> bool:
    """Whether a line of a manifest names something below the prefix, or a folder that leads to it.

    Who can write the manifest, as a user in whose folder root has installed the program, could
    else have root remove any file.
    """
    path = place.top / line
    prefix = place.at(place.prefix)
    leads_there = line.endswith("/") and prefix.is_relative_to(path)
    return ".." not in path.parts and (path.is_relative_to(prefix) or leads_there)


def main() -> None:
    """Read the command line, which the Makefile writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("install", "uninstall"))
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--destdir", default="")
    words = parser.parse_args()
    os.umask(0o022)
    place = Place(words.destdir, words.prefix)
    try:
        {"install": install, "uninstall": uninstall}[words.what](place)
    except PermissionError as error:
        sys.exit(f"{words.what}: {error.filename}: permission denied: run it with sudo")


if __name__ == "__main__":
    main()
