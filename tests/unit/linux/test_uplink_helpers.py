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
    handles_half_closed,
    with_version,
)
from qemu_netwrap.linux.uplink_helpers import find as find_helper

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder that is searched, before root's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("version", "handles"),
    [
        ("pasta unknown version", False),  # Debian 12
        ("", False),
        ("pasta 0.0~git20230627.289301b-1", False),
        ("pasta 2024_08_21.1d6142f", False),
        ("pasta 0^20240906.g6b38f07-1.fc40.x86_64", True),
        ("pasta 0.0~git20250503.587980c-2+deb13u1", True),  # Debian 13
        ("pasta 2025.06.11", True),
    ],
)
def test_handles_half_closed(version: str, *, handles: bool) -> None:
    assert handles_half_closed(version) is handles


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
    """It is not even asked for its version."""
    there = find(name, "/usr/bin")
    (folder / name).symlink_to(there)
    for wanted in ("auto", name):
        found = find_helper(wanted)
        assert found is not None
        assert (found.name, found.version) == (name, "")


def test_both_are_installed(folder: Path) -> None:
    for name in (PASTA, SLIRP):
        (folder / name).symlink_to(find(name, "/usr/bin"))
    found = find_helper()
    assert found is not None
    assert found.name == SLIRP


@pytest.mark.parametrize("name", [PASTA, SLIRP])
def test_version(name: str) -> None:
    """Debian 12's pasta has none."""
    helper = find_helper(name)
    assert helper is not None
    assert "version" in with_version(helper).version or name == PASTA


def test_ipv6_is_left_out() -> None:
    assert "--ipv4-only" in command(UplinkHelper(PASTA, "/x"), 7, ipv6=False)
    assert "--enable-ipv6" not in command(UplinkHelper(SLIRP, "/x"), 7, ipv6=False)
