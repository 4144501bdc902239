"""`make install` and `make uninstall`, and the program as they leave it, on a simulated machine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from lab import checkout
from lab.netns import wait_for
from lab.tool import IDLE, QEMU

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fixtures import Watch
    from lab.netns import Uplinked
    from lab.user import User

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

OWNER: Final = 12345
PROGRAM: Final = "/usr/local/bin/qemu-netwrap"
# What others find: the rest is below lib/qemu-netwrap.
SHARED: Final = """
bin/qemu-ifdown bin/qemu-ifup bin/qemu-netwrap bin/qemu-netwrap-bridge-helper
share/bash-completion/completions/qemu-netwrap share/doc/qemu-netwrap/LICENSE
share/fish/vendor_completions.d/qemu-netwrap.fish share/man/man1/qemu-netwrap.1
share/man/man5/qemu-netwrap.toml.5 share/zsh/site-functions/_qemu-netwrap
""".split()


class Maker:
    """A checkout of an ordinary user's, in which root calls make, without the network."""

    def __init__(self, folder: Path) -> None:
        self.tree = checkout.copy(folder / "tree")
        for path in (self.tree, *self.tree.rglob("*")):
            os.chown(path, OWNER, OWNER)
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        needed = ("psutil", "pyroute2", "sh", "typer", "hatchling")
        checkout.pack_wheels(self.wheels, *needed)

    def make(self, *words: str) -> None:
        offline = {"PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": "/dev/null"}
        env = {**os.environ, **offline, "PIP_FIND_LINKS": str(self.wheels)}
        # The tests' own Python has a pip; the program gets the one that it is a venv of.
        command = ("make", "-s", *words, f"PYTHON={sys.executable}")
        done = subprocess.run(
            command, cwd=self.tree, env=env, check=False, capture_output=True, text=True, umask=0o77
        )
        assert not done.returncode, done.stderr
        assert done.stdout + done.stderr == ""


def listed(top: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, owner and time stamp of all files below TOP; of folders the mode and owner."""
    seen = {}
    for path in top.rglob("*"):
        found = path.lstat()
        is_folder = stat.S_ISDIR(found.st_mode)
        seen[str(path.relative_to(top))] = (
            found.st_mode, found.st_uid, 0 if is_folder else found.st_mtime_ns
        )  # fmt: skip
    return seen


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def image(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the program in it, as a packager makes it."""
    top = tmp_path_factory.mktemp("image")
    (top / "usr/local/bin").mkdir(parents=True)
    (top / "usr/local/bin/other").write_text("another program\n", "utf-8")
    before = listed(maker.tree)
    maker.make("install", f"DESTDIR={top}")
    assert listed(maker.tree) == before
    return top


@pytest.fixture
def machine(image: Path, uplinked: Uplinked, watch: Watch) -> Uplinked:
    """Return a machine that has it in /usr/local."""
    uplinked.host.run("mount", "--bind", str(image / "usr/local"), "/usr/local")
    watch.baseline(uplinked.host)
    return uplinked


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """Return an environment that would have another Python's code run."""
    for name in ("typer", "json", "psutil", "qemu_netwrap", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("print('foreign code', flush=True)\n", "utf-8")
    site = tmp_path / f"lib/python3.{sys.version_info.minor}/site-packages"
    shutil.copytree(tmp_path, site)
    path = str(tmp_path)
    return {
        **dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE"), path),
        "PYTHONSTARTUP": f"{path}/typer.py",
        "PYTHONINSPECT": "1",
    }


def test_files(image: Path) -> None:
    prefix = image / "usr/local"
    private = prefix / "lib/qemu-netwrap"
    found = [path for path in prefix.rglob("*") if path.is_symlink() or not path.is_dir()]
    outside = [path for path in found if not path.is_relative_to(private)]
    assert sorted(str(path.relative_to(prefix)) for path in outside) == sorted(
        [*SHARED, "bin/other"]
    )
    assert sorted(path.name for path in (private / "bin").iterdir()) == ["python3"]
    lines = (private / "manifest").read_text("utf-8").splitlines()
    files = {str(path.relative_to(image)) for path in found} - {"usr/local/bin/other"}
    assert {line for line in lines if not line.endswith("/")} == files
    for path in (path for path in image.rglob("*") if not path.is_symlink()):
        assert path.stat().st_mode & 0o777 in {0o644, 0o755}, path
    # The folder in which it was put together is not named, nor is the checkout's in what runs.
    compiled = [path.read_bytes() for path in found if path.suffix == ".pyc"]
    assert compiled
    assert not any(b"/stage/" in text or b"qemu-netwrap-install-" in text for text in compiled)


def test_launch(machine: Uplinked, image: Path, tmp_path: Path, hostile: dict[str, str]) -> None:
    """Root runs what belongs to a user: none of the user's code, and none of root's left."""
    host = machine.host
    for path in (image, *image.rglob("*")):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    before = listed(image)
    qemu = host.popen(
        PROGRAM,
        "-q",
        "--",
        QEMU,
        *IDLE,
        "-nic",
        "nat",
        cwd=tmp_path,
        env=hostile,
        stdout=subprocess.PIPE,
    )
    tap = ("ip", "link", "show", "up", "dev", f"qn{qemu.pid}-0")
    wait_for(lambda: host.run(*tap, check=False).returncode == 0, "the tap")
    for words in (("ps",), ("plan", "--", QEMU, "-nic", "nat"), ("config", "show"), ("--version",)):
        done = host.run(PROGRAM, *words, cwd=tmp_path, env=hostile)
        assert "foreign code" not in done.stdout
    assert "Python 3." in done.stdout
    assert "(/usr/local/lib/qemu-netwrap/bin/python3)" in done.stdout
    qemu.kill()
    output, _ = qemu.communicate(timeout=60)
    assert not output
    host.run(PROGRAM, "wait")
    assert listed(image) == before


@pytest.mark.parametrize("name", ["qemu-ifup", "qemu-ifdown", "qemu-netwrap-bridge-helper"])
def test_other_programs(
    machine: Uplinked, tmp_path: Path, hostile: dict[str, str], name: str
) -> None:
    path = f"/usr/local/bin/{name}"
    done = machine.host.run(path, cwd=tmp_path, env=hostile, check=False)
    assert "foreign code" not in done.stdout
    assert "qemu-netwrap: " in done.stderr


def test_by_sudo(machine: Uplinked) -> None:
    """It is found sudo's own PATH (secure_path), wherever the caller's leads."""
    done = machine.host.run("/usr/bin/sudo", "qemu-netwrap", "--version", env={"PATH": "/bin"})
    assert done.stdout.startswith("qemu-netwrap ")


def test_ordinary_user(machine: Uplinked, user: User) -> None:
    qemu = user.popen(PROGRAM, "-q", "--", QEMU, *IDLE, "-nic", "nat", stderr=subprocess.DEVNULL)
    listing = (PROGRAM, "ps", "--json")
    wait_for(lambda: "qn-nat" in user.run(*listing, check=False).stdout, "the run")
    qemu.kill()
    qemu.wait(60)
    user.run(PROGRAM, "wait")


def test_uninstall(maker: Maker, image: Path, tmp_path: Path) -> None:
    """What was there before is left, and so is what others have put there since."""
    top = tmp_path / "copy"
    shutil.copytree(image, top, symlinks=True)
    stray = top / "usr/local/lib/qemu-netwrap/lib/__pycache__"  # as an interpreter's with -O
    stray.mkdir()
    (stray / "a.opt-1.pyc").write_text("", "utf-8")
    theirs = top / "usr/local/share/man/man1/other.1"
    theirs.write_text("", "utf-8")
    maker.make("uninstall", f"DESTDIR={top}")
    left = sorted(str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir())
    assert left == ["usr/local/bin/other", "usr/local/share/man/man1/other.1"]
    folders = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_dir()}
    man = {"usr/local/share", "usr/local/share/man", "usr/local/share/man/man1"}
    assert folders == {"usr", "usr/local", "usr/local/bin"} | man


@pytest.mark.parametrize("line", ["other", "usr/../other", "/other", "usr/locally/a"])
def test_a_manifest_that_names_anothers_file(image: Path, tmp_path: Path, line: str) -> None:
    """As written by a user in whose folder root has installed the program: nothing is removed."""
    top = tmp_path / "copy"
    shutil.copytree(image, top, symlinks=True)
    for name in ("other", "usr/locally/a"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text("", "utf-8")
    manifest = top / "usr/local/lib/qemu-netwrap/manifest"
    manifest.write_text(f"{manifest.read_text('utf-8')}{line}\n", "utf-8")
    before = listed(top)
    script = checkout.ROOT / "tools" / "install.py"
    words = ("--prefix", "/usr/local", "--destdir", str(top), "uninstall")
    command = (sys.executable, "-IB", str(script), *words)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not a path of an installation" in done.stderr
    assert listed(top) == before


def test_prefix_and_upgrade(maker: Maker, tmp_path: Path) -> None:
    """An upgrade removes what the version before has left, and uninstalling all of both."""
    (tmp_path / "there").mkdir()
    before = listed(tmp_path)
    prefix = tmp_path / "there/new/prefix"
    private = prefix / "lib/qemu-netwrap"
    private.mkdir(parents=True)
    old = ("bin/qemu-netwrap-old", "lib/qemu-netwrap/lib/old.py", "bin/qemu-netwrap")
    folders = ("there/new", "there/new/prefix", "there/new/prefix/lib", "there/new/prefix/bin")
    for name in old:
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text("of the version before\n", "utf-8")
    lines = [
        *(str((prefix / name).relative_to("/")) for name in old),
        *(f"{(tmp_path / name).relative_to('/')}/" for name in folders),
        f"{private.relative_to('/')}/",
        f"{private.relative_to('/')}/lib/",
    ]
    (private / "manifest").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    maker.make("install", f"PREFIX={prefix}")
    assert not (prefix / old[0]).exists()
    assert not (prefix / old[1]).exists()
    told = subprocess.run(
        (prefix / "bin/qemu-netwrap", "--version"), check=True, capture_output=True, text=True
    )
    assert told.stdout.startswith("qemu-netwrap 0.2.0.dev0\n")
    maker.make("uninstall", f"PREFIX={prefix}")
    assert listed(tmp_path) == before
