"""Root runs an installation in a user's home: no compiled module of root's is left there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab import hooked
from lab.installation import Installation
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked

OWNER: Final = 12345
PROGRAMS: Final = ("qemu-netwrap", "qemu-netwrap-bridge-helper", "qemu-ifup", "qemu-ifdown")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a venv of another user's, with nothing compiled yet."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    made = Installation(tmp_path / "venv").with_libraries()
    for name in PROGRAMS:
        _, _, text = Path(COMMAND).with_name(name).read_text("utf-8").partition("\n")
        program = made.folder / "bin" / name
        program.write_text(f"#!{made.folder}/bin/python3\n{text}", "utf-8")
        program.chmod(0o755)
    for cache in [*made.package.rglob("__pycache__")]:
        shutil.rmtree(cache)
    for path in (made.folder, *made.folder.rglob("*")):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    return made.folder


def _of_root(home: Path) -> list[str]:
    """Return what belongs to root below a venv."""
    return [str(path) for path in home.rglob("*") if path.lstat().st_uid != OWNER]


@pytest.mark.parametrize("flock", ["flock", "none"])
def test_launch(uplinked: Uplinked, home: Path, flock: str) -> None:
    host = uplinked.host
    if flock == "none":  # the waiter itself waits
        host.run("mount", "--bind", "/dev/null", "/usr/bin/flock")
    command = str(home / "bin" / "qemu-netwrap")
    qemu = host.popen(command, "-q", "--", QEMU, *IDLE, "-nic", "nat", stdout=subprocess.DEVNULL)
    tap = ("ip", "link", "show", "up", "dev", f"qn{qemu.pid}-0")
    wait_for(lambda: host.run(*tap, check=False).returncode == 0, "the tap")
    # The lookout becomes Python when the host's way out changes.
    route = host.run("ip", "route", "show", "default").stdout.split()
    host.run("ip", "route", "delete", *route)
    host.run("ip", "route", "add", *route)
    host.run(command, "ps")
    host.run(command, "plan", "--", QEMU, "-nic", "nat")
    qemu.kill()
    qemu.wait(60)
    host.run(command, "wait")
    if flock == "none":
        host.run("umount", "/usr/bin/flock")
    assert _of_root(home) == []


def test_shim(uplinked: Uplinked, home: Path) -> None:
    host = uplinked.host
    host.write("/etc/shims/empty", "")
    shim = f"/etc/shims/{QEMU}"
    host.run("ln", "-s", str(home / "bin" / "qemu-netwrap"), shim)
    qemu = host.popen(shim, *IDLE, "-nic", "nat", stderr=subprocess.DEVNULL)
    tap = ("ip", "link", "show", "up", "dev", f"qn{qemu.pid}-0")
    wait_for(lambda: host.run(*tap, check=False).returncode == 0, "the tap")
    qemu.kill()
    qemu.wait(60)
    host.run("rm", shim)
    host.run(COMMAND, "wait")
    assert _of_root(home) == []


@pytest.mark.parametrize("way", ["scripts", "helper"])
def test_programs_that_qemu_calls(uplinked: Uplinked, home: Path, way: str) -> None:
    host: Host = uplinked.host
    folder = home / "bin"
    nic = {
        "scripts": f"tap,ifname=tap0,script={folder}/qemu-ifup,downscript={folder}/qemu-ifdown",
        "helper": f"bridge,br=br9,helper={folder}/qemu-netwrap-bridge-helper",
    }[way]
    host.write("/etc/qemu/bridge.conf", "allow all\n")
    host.run("ip", "link", "add", "br9", "type", "bridge")
    qemu = hooked.start(host, "-nic", nic)
    assert " master " in host.run("ip", "link", "show", "type", "tun").stdout
    hooked.end(qemu, signal.SIGTERM)
    host.run(COMMAND, "wait")
    host.run("ip", "link", "delete", "br9")
    assert _of_root(home) == []
