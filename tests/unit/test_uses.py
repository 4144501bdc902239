"""Files that say who needs a shared thing: one format, which older versions read and wrote too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_netwrap import uses
from qemu_netwrap.resources import vfio
from qemu_netwrap.uses import Uses

if TYPE_CHECKING:
    from pathlib import Path

# What versions before this module wrote, and what it says.
OLDER: dict[str, tuple[str, Uses]] = {
    "rules": ("qn-nat\nqn7-0\n", Uses((), (("qn-nat", ""), ("qn7-0", "")))),
    "guards": ("qn-nat ipv4 32763 iif eth0\n", Uses((), (("qn-nat", "ipv4 32763 iif eth0"),))),
    "a claim": ("7 qn-nat\n9 qn-nat", Uses((), (("7", "qn-nat"), ("9", "qn-nat")))),
    "forwarding": ("2\nqn-nat\nb\n", Uses(("2",), (("qn-nat", ""), ("b", "")))),
    "ipv6": ("0 default 3\nqn-nat\n", Uses(("0", "default", "3"), (("qn-nat", ""),))),
    "ipv6, half put back": ("0 default 3\n", Uses(("0", "default", "3"))),
    "none": ("", Uses()),
}


@pytest.mark.parametrize("which", OLDER)
def test_older_files_are_read_and_written_alike(tmp_path: Path, which: str) -> None:
    path = tmp_path / "file"
    text, said = OLDER[which]
    if text:
        path.write_text(text, "utf-8")
    read = Uses.read_changed if said.former else Uses.read
    assert read(str(path)) == said
    said.write(str(path))
    assert path.read_text("utf-8").rstrip("\n") == text.rstrip("\n")


def test_uses_come_and_go(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    assert not uses.disclaim(path, "7", "br0")
    for run in ("7", "9", "7"):
        uses.claim(path, run, "br0")
    assert Uses.read(path).names == ("7", "9")
    assert not uses.disclaim(path, "8", "br0")
    assert uses.disclaim(path, "7", "br0")
    assert Uses.read(path).users == (("9", "br0"),)
    assert uses.disclaim(path, "9", "br0")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "text", ["1\n1,192.0.2.1\n/run/x:7\n/run/x:9", "1 1,192.0.2.1\n/run/x:7\n/run/x:9\n"]
)
def test_a_physical_function_of_an_older_version(tmp_path: Path, text: str) -> None:
    path = tmp_path / "0000:01:00.0"
    path.write_text(text, "utf-8")
    found = vfio._uses(str(path))
    assert found == Uses(("1", "1,192.0.2.1"), (("/run/x:7", ""), ("/run/x:9", "")))


def test_an_odd_name_is_one_line(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    name = "b\x85\x0c\u2028"
    Uses().with_use(name, "what it is").write(path)
    assert Uses.read(path).users == ((name, "what it is"),)


def test_an_odd_name_is_one_word_of_a_former_state(tmp_path: Path) -> None:
    """What stands on a physical function is a part of its former state."""
    path = tmp_path / "0000:01:00.0"
    was = "1,b\x1c\x85\u3000"
    Uses(("1", was), (("/run/x:7", ""),)).write(str(path))
    assert vfio._uses(str(path)) == Uses(("1", was), (("/run/x:7", ""),))
    path.write_text(f"1\n{was}\n/run/x:7", "utf-8")
    assert vfio._uses(str(path)) == Uses(("1", was), (("/run/x:7", ""),))
