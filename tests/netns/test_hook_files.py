"""Our scripts as /etc/qemu-ifup and /etc/qemu-ifdown: put there, called, and taken away again."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from lab.hooked import IFDOWN, IFUP, end, links, start, wait_gone
from lab.tool import netwrap

if TYPE_CHECKING:
    from pathlib import Path

    from lab.netns import Host, Uplinked

SCRIPTS = ("/etc/qemu-ifup", "/etc/qemu-ifdown")
SAVED = ".before-qemu-netwrap"
KEPT = "#!/bin/sh\n: the administrator's own\n"


def states(host: Host) -> list[str]:
    """Return whose the two scripts are."""
    found = json.loads(netwrap(host, "hooks", "status", "--json", check=True).stdout)
    return [hook["state"] for hook in found]


def test_qemu_calls_them_by_default(uplinked: Uplinked) -> None:
    host = uplinked.host
    for path in SCRIPTS:
        host.write(path, KEPT, mode=0o750)
    assert states(host) == ["another program's"] * 2
    netwrap(host, "hooks", "install", check=True)
    netwrap(host, "hooks", "install", check=True)  # again: nothing is lost
    assert states(host) == ["installed"] * 2
    assert [host.read(f"{path}{SAVED}") for path in SCRIPTS] == [KEPT] * 2
    child = start(host, "-nic", "tap")
    assert links(host)["tap0"]["master"] == "qn-nat"
    end(child, signal.SIGTERM)
    wait_gone(host)
    netwrap(host, "hooks", "remove", check=True)
    assert [host.read(path) for path in SCRIPTS] == [KEPT] * 2
    assert host.run("stat", "-c", "%a", SCRIPTS[0]).stdout == "750\n"


def test_where_nothing_was_nothing_is_left(host: Host) -> None:
    host.run("mkdir", "-p", "/run/image/etc")
    root = ("--root", "/run/image")
    for _ in range(2):
        netwrap(host, "hooks", "install", *root, check=True)
        script = host.read("/run/image/etc/qemu-ifup")
        assert script.endswith(f'exec {IFUP} "$@"\n')
        assert IFDOWN in host.read("/run/image/etc/qemu-ifdown")
        netwrap(host, "hooks", "remove", *root, check=True)
        netwrap(host, "hooks", "remove", *root, check=True)
        assert host.run("ls", "/run/image/etc").stdout == ""
    host.run("rm", "-r", "/run/image")


def test_a_script_that_somebody_has_put_over_ours_is_left(host: Host) -> None:
    host.run("mkdir", "-p", "/run/image/etc")
    root = ("--root", "/run/image")
    ours = "/run/image/etc/qemu-ifup"
    host.run("sh", "-c", f"echo first >{ours}")
    netwrap(host, "hooks", "install", *root, check=True)
    host.run("sh", "-c", f"echo second >{ours}")
    for command in ("install", "remove"):
        done = netwrap(host, "hooks", command, *root)
        assert done.returncode == 125
        assert f"{ours}{SAVED}" in done.stderr
    assert host.read(ours) == "second\n"
    assert host.read(f"{ours}{SAVED}") == "first\n"
    host.run("rm", "-r", "/run/image")


@pytest.mark.parametrize("kind", ["link", "dangling"])
def test_a_link_is_given_back_as_a_link(host: Host, kind: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    target = tmp_path / "script"
    if kind == "link":
        target.write_text(KEPT, "utf-8")
    (tmp_path / "etc/qemu-ifup").symlink_to(target)
    netwrap(host, "hooks", "install", "--root", str(tmp_path), check=True)
    assert target.exists() == (kind == "link")
    assert not (tmp_path / "etc/qemu-ifup").is_symlink()
    netwrap(host, "hooks", "remove", "--root", str(tmp_path), check=True)
    assert (tmp_path / "etc/qemu-ifup").readlink() == target
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["qemu-ifup"]


def test_a_program_that_has_gone_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    root = ("--root", str(tmp_path))
    netwrap(host, "hooks", "install", *root, check=True)
    script = tmp_path / "etc/qemu-ifup"
    script.write_text(script.read_text("utf-8").replace(IFUP, "/nowhere/qemu-ifup"), "utf-8")
    assert "gone" in netwrap(host, "hooks", "status", *root, check=True).stdout
    netwrap(host, "hooks", "remove", *root, check=True)
    assert list((tmp_path / "etc").iterdir()) == []
