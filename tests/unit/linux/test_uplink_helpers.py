"""Which helper is found and chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux.programs import find
from qemu_netwrap.linux.uplink_helpers import (
    PASTA,
    SLIRP,
    UplinkHelper,
    command,
)
from qemu_netwrap.linux.uplink_helpers import find as find_helper

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder that is searched, before root's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_none_is_installed(folder: Path) -> None:
    assert folder.is_dir()
    assert find_helper() is None
    with pytest.raises(HostError) as caught:
        find_helper(PASTA)
    assert caught.value.hint == "install it: apt install passt"
    with pytest.raises(HostError) as caught:
        find_helper(SLIRP)
    assert caught.value.hint == "install it: apt install slirp4netns"


@pytest.mark.parametrize("name", [PASTA, SLIRP])
def test_one_is_installed(folder: Path, name: str) -> None:
    there = find(name, "/usr/bin")
    (folder / name).symlink_to(there)
    for wanted in ("auto", name):
        found = find_helper(wanted)
        assert found is not None
        assert found.name == name


def test_both_are_installed(folder: Path) -> None:
    for name in (PASTA, SLIRP):
        (folder / name).symlink_to(find(name, "/usr/bin"))
    found = find_helper()
    assert found is not None
    assert found.name == SLIRP


def test_ipv6_is_left_out() -> None:
    assert "--ipv4-only" in command(UplinkHelper(PASTA, "/x"), 7, ipv6=False)
    assert "--enable-ipv6" not in command(UplinkHelper(SLIRP, "/x"), 7, ipv6=False)
