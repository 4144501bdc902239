"""What runs of all network namespaces share: locks that are not waited for without end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap import pci_state
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from pathlib import Path

BDF = "0000:01:00.0"


def test_a_lock_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pci_state.PciState(StateDir(f"{tmp_path}/boot-net"))
    with found.lock_of(BDF):
        pass
    monkeypatch.setattr(pci_state, "_DEVICE_LOCK_TIMEOUT", 0.1)
    with files.Lock(f"{found.base}/locks/{BDF}"):
        with pytest.raises(HostError, match=rf"{BDF}: .* \(pid {os.getpid()}\)") as caught:
            found.lock_of(BDF).__enter__()
        assert "qemu-netwrap gc" in caught.value.hint
    with found.lock_of(BDF):
        pass
