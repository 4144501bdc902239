"""Two processes that give up one realm at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_netwrap import realm, record_text

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_who_comes_second_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It read that there is a realm, and takes a lock that the first one has removed meanwhile."""
    folder = tmp_path / "user"
    folder.mkdir()
    fields = {"base": f"{folder}/state", "inode": "1", "pid": "0", "started": ""}
    (folder / "one.realm").write_text(record_text.write("realm", fields) + "\n", "utf-8")
    (folder / "one.lock").touch()
    take = realm._locked

    def after_the_first(path: str) -> int:
        for file in folder.iterdir():
            file.unlink()
        return take(path)

    monkeypatch.setattr(realm, "_locked", after_the_first)
    assert realm.read(f"{folder}/one") is not None
    realm.tidy(f"{folder}/state")
    assert not folder.exists()
