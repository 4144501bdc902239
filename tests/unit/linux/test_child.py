"""What a program prints comes back whole, or it is said that it does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A function that makes a shell script of some lines, and returns the name it goes by."""

    def make(lines: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        monkeypatch.setattr(child, "require", lambda _name: str(path))
        return "program"

    return make


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_000])
def test_all_output_comes_back(program: Callable[[str], str], size: int) -> None:
    name = program(f"head -c {size} /dev/zero | tr '\\0' x; echo; echo last")
    assert child.Child((name,)).wait() == f"{'x' * size}\nlast".strip()


def test_all_input_arrives(program: Callable[[str], str]) -> None:
    name = program("cat")
    text = "".join(f"rule {number}\n" for number in range(100_000))
    assert child.Child((name,), text).wait() == text.strip()


def test_the_first_line_of_a_failure(program: Callable[[str], str]) -> None:
    name = program("echo 'no such chain' >&2; head -c 100000 /dev/zero | tr '\\0' x; exit 3")
    with pytest.raises(HostError, match=r"^program: no such chain$"):
        child.Child((name,)).wait()


def test_too_much_output_is_told(
    program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = program("head -c 3000 /dev/zero")
    monkeypatch.setattr(child, "_MOST_OUTPUT", 2999)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="printed 3000 bytes"):
        child.Child((name,)).wait()
    assert len(os.listdir("/proc/self/fd")) == before
