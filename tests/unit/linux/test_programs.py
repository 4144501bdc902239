"""Which programs the launcher starts for itself: none that others could exchange."""

from __future__ import annotations

import grp
import os
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.linux import programs

if TYPE_CHECKING:
    from pathlib import Path

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="files are given away as root")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program in a folder of its own."""
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    path = folder / "nft"
    path.write_text("", "utf-8")
    path.chmod(0o755)
    assert programs.is_trusted(str(path))
    return path


@pytest.mark.parametrize("mode", [0o757, 0o1757, 0o1777])
def test_a_file_that_others_may_write(program: Path, mode: int) -> None:
    program.chmod(mode)
    assert not programs.is_trusted(str(program))


@pytest.mark.parametrize(("mode", "trusted"), [(0o757, False), (0o1777, True), (0o755, True)])
def test_a_folder_that_others_may_write(program: Path, mode: int, trusted: bool) -> None:
    program.parent.chmod(mode)
    assert programs.is_trusted(str(program)) is trusted


@ROOT
@pytest.mark.parametrize(("group", "trusted"), [("root", True), ("nogroup", False)])
def test_a_folder_that_a_group_may_write(program: Path, group: str, trusted: bool) -> None:
    os.chown(program.parent, 0, grp.getgrnam(group).gr_gid)
    program.parent.chmod(0o775)
    assert programs.is_trusted(str(program)) is trusted


@ROOT
def test_debians_usr_local(program: Path) -> None:
    staff = grp.getgrnam("staff")
    os.chown(program.parent, 0, staff.gr_gid)
    program.parent.chmod(0o2775)
    assert programs.is_trusted(str(program)) is not bool(staff.gr_mem)


@ROOT
@pytest.mark.parametrize("whose", ["file", "folder", "link"])
def test_what_belongs_to_somebody_else(program: Path, tmp_path: Path, whose: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(program)
    assert programs.is_trusted(str(link))
    what = {"file": program, "folder": program.parent, "link": link}[whose]
    os.chown(what, 65534, 65534, follow_symlinks=False)
    assert not programs.is_trusted(str(link))


def test_the_next_on_path_is_taken(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "nft").symlink_to(program)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "nft").write_text("", "utf-8")
    (bad / "nft").chmod(0o777)
    monkeypatch.setenv("PATH", f"{bad}:{other}")
    assert programs.find("nft") == str(bad / "nft")
    assert programs.find_trusted("nft") == str(program)
    assert programs.find_trusted("nosuch") == ""
