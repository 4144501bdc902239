"""The journal: what is not released, also when a crash has cut it short."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap import __version__
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.linux import files
from qemu_netwrap.resources import other_format
from qemu_netwrap.resources.base import Resource
from qemu_netwrap.resources.dhcp_hosts import DhcpHost
from qemu_netwrap.resources.journal import FORMAT, Entry, Journal
from qemu_netwrap.resources.links import Address, Bridge, Tap
from qemu_netwrap.resources.nftables import NetworkChains
from qemu_netwrap.runtime import kept_code, provision, tap_waiter, waiter
from qemu_netwrap.runtime.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A carriage return is in none of the names and texts we write.
VALUES = st.text(alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"]))
RESOURCES = st.one_of(
    st.builds(Tap, VALUES, VALUES, st.integers(), st.booleans()),
    st.builds(NetworkChains, VALUES, VALUES),
    st.builds(DhcpHost, VALUES, VALUES, VALUES, VALUES),
)
# What to do, and to which of the resources intended so far.
STEPS = st.lists(
    st.one_of(
        RESOURCES,
        st.tuples(st.just("note"), st.integers(0, 9), VALUES),
        st.tuples(st.just("done"), st.integers(0, 9), st.just("")),
    )
)


def replay(journal: Journal, steps: list[Resource | tuple[str, int, str]]) -> list[list[Entry]]:
    """Carry STEPS out; return what is live after each line that was written."""
    live: dict[int, Entry] = {}
    states: list[list[Entry]] = [[]]
    numbers: list[int] = []
    for step in steps:
        if isinstance(step, Resource):
            numbers.append(journal.intend(step))
            live[numbers[-1]] = Entry(numbers[-1], step, {})
        elif numbers:
            what, which, value = step
            number = numbers[which % len(numbers)]
            if what == "done":
                journal.done(number)
                live.pop(number, None)
            else:
                journal.note(number, fact=value)
                if number in live:
                    live[number] = live[number].replace(facts={"fact": value})
        else:
            continue
        states.append([entry.replace() for entry in live.values()])
    return states


def test_there_is_nothing_without_a_file(tmp_path: Path) -> None:
    assert Journal(str(tmp_path / "journal")).live() == []
    assert Journal(str(tmp_path / "no" / "journal")).live() == []


def test_intend_note_done(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    bridge, address, tap = (
        Bridge("b", "52:54:00:00:00:01"),
        Address("b", "10.0.0.1/24"),
        Tap("t", "b"),
    )
    assert [journal.intend(r) for r in (bridge, address, tap)] == [1, 2, 3]
    journal.note(1, index="7", was="a\tb\n")
    journal.note(1, index="8")
    journal.done(2)
    assert Journal(str(path)).live() == [
        Entry(1, bridge, {"index": "8", "was": "a\tb\n"}),
        Entry(3, tap, {}),
    ]
    assert journal.intend(address) == 4
    journal.done(1)
    journal.done(3)
    journal.done(4)
    assert journal.live() == []
    assert path.stat().st_mode & 0o777 == 0o600


@given(STEPS)
def test_live_is_what_was_intended_and_not_released(
    steps: list[Resource | tuple[str, int, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(f"{folder}/journal")
        assert replay(journal, steps)[-1] == journal.live()


def test_a_crash_at_any_byte_leaves_a_state_that_was(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    states = replay(
        Journal(str(path)),
        [
            Bridge("qn-nat", "52:54:00:00:00:01"),
            ("note", 0, "7"),
            NetworkChains("qn-nat", "chain é {\n\tx\n}\n"),
            Tap("qn1-0", "qn-nat"),
            ("note", 1, "é\\"),
            ("done", 1, ""),
            DhcpHost("qn-nat", "1", "52:54:00:00:00:02", "a"),
            ("done", 0, ""),
            ("done", 2, ""),
            ("done", 3, ""),
        ],
    )
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        heads = whole[:end].count(b"journal\t") and 1
        assert Journal(str(path)).live() == states[max(whole[:end].count(b"\n") - heads, 0)]
    assert Journal(str(path)).live() == []


def test_lines_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.intend(Tap("t", "b"))
    with path.open("ab") as file:
        file.write(b"\n# a note\n+\n+x\tTap\n?1\n-\n-7\n=7\ta=b\n\0\xff\n \n")
    assert journal.live() == [Entry(1, Tap("t", "b"), {})]
    assert journal.intend(Tap("u", "b")) == 8


def test_a_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    tap = Tap(b"\xff\xfe".decode("utf-8", "surrogateescape"), "b")
    journal.intend(tap)
    assert journal.live() == [Entry(1, tap, {})]


def test_a_journal_is_not_read_anew_for_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = files.read, 0

    def counted(path: str) -> str:
        nonlocal count
        count += 1
        return read(path)

    monkeypatch.setattr(files, "read", counted)
    journal, other = (Journal(str(tmp_path / "journal")) for _ in range(2))
    numbers = []
    for _ in range(100):
        numbers.append(journal.intend(Membership("br0", "1")))
        journal.note(numbers[-1], index="7")
    assert count == 1
    numbers += [other.intend(Membership("br0", "2")), journal.intend(Membership("br0", "1"))]
    journal.done(numbers[0])
    numbers.append(other.intend(Membership("br0", "2")))
    assert numbers == [*range(1, 104)]
    assert [entry.number for entry in journal.live()] == numbers[1:]


PLACES = "package=/opt/new\tpython=/opt/new/python3"
NEWER = f"journal\tformat={FORMAT + 1}\tversion=9.9.9\t{PLACES}\n"


def test_the_head_names_format_and_program(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(str(path)).intend(Tap("t", "b"))
    head, line = path.read_text("utf-8").splitlines()
    assert head.startswith(f"journal\tformat={FORMAT}\tversion={__version__}\tpackage=/")
    assert line.startswith("+1\tTap\t")


def test_a_journal_without_a_head_is_read_and_gone_on_with(tmp_path: Path) -> None:
    """What is added to it has a head; an older version passes that over."""
    path = tmp_path / "journal"
    path.write_text(f"+1\t{Tap('t', 'b').to_line()}\n=1\tindex=7\n", "utf-8")
    journal = Journal(str(path))
    assert journal.live() == [Entry(1, Tap("t", "b"), {"index": "7"})]
    assert [journal.intend(Tap("u", "b")), Journal(str(path)).intend(Tap("v", "b"))] == [2, 3]
    lines = path.read_text("utf-8").splitlines()
    assert [line.partition("\t")[0] for line in lines] == ["+1", "=1", "journal", "+2", "+3"]
    assert len(journal.live()) == 3


@pytest.mark.parametrize("at", ["first", "last"])
def test_a_newer_format_is_neither_read_nor_added_to(tmp_path: Path, at: str) -> None:
    path = tmp_path / "journal"
    line = f"+1\t{Tap('t', 'b').to_line()}\n"
    text = NEWER + line if at == "first" else line + NEWER
    path.write_text(text, "utf-8")
    journal = Journal(str(path))
    for use in (journal.live, journal.check, lambda: journal.intend(Tap("u", "b"))):
        with pytest.raises(HostError, match=f"9.9.9 in /opt/new has .* format {FORMAT + 1}") as e:
            use()
        assert e.value.hint.startswith("install qemu-netwrap 9.9.9 again")
    assert journal.peek() == []
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("head", ["journal\t", "journal\tformat=x\n", "journal\tformat=0\tv\n"])
def test_a_damaged_head_is_told(tmp_path: Path, head: str) -> None:
    path = tmp_path / "journal"
    path.write_text(f"{head.rstrip()}\t\n+1\t{Tap('t', 'b').to_line()}\n", "utf-8")
    with pytest.raises(HostError, match="names its format is damaged"):
        Journal(str(path)).live()


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Return what a head names, in a run's folder with a copy of the package."""
    for name in ("tap_waiter.py", "package.zip", "venv/python3", "new/python3.99"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "venv/lib/qemu_netwrap").mkdir(parents=True)
    return {
        "package": tmp_path / "venv/lib",
        "python": tmp_path / "venv/python3",
        "interpreter": tmp_path / "new/python3.99",
    }


def remedy(tmp_path: Path, places: Mapping[str, str | Path]) -> str:
    """Return what is to be done about a journal whose head names PLACES."""
    fields = "".join(f"\t{key}={path}" for key, path in places.items())
    head = f"journal\tformat={FORMAT + 1}\tversion=9.9.9{fields}"
    return other_format.error(f"{tmp_path}/journal", head, FORMAT).hint


def test_the_program_that_wrote_a_journal_releases_it(
    tmp_path: Path, places: dict[str, Path]
) -> None:
    hint = remedy(tmp_path, places)
    assert hint.endswith(f"releases it: {places['python']} -I -m qemu_netwrap gc")


@pytest.mark.parametrize("package", ["there", "gone"])
def test_the_copy_beside_a_run_releases_it_when_its_program_is_gone(
    tmp_path: Path, places: dict[str, Path], package: str
) -> None:
    places["python"].unlink()
    if package == "gone":
        places["package"] /= "gone"
    hint = remedy(tmp_path, places)
    words = f"{places['interpreter']} -I -S {tmp_path}/tap_waiter.py {tmp_path} 3 0"
    found = f"{tmp_path}/package.zip" + (f" {places['package']}" if package == "there" else "")
    assert hint.endswith(f"flock -F {tmp_path}/lock {words} {found} </dev/null")


def test_nothing_is_run_that_others_can_write_to(tmp_path: Path, places: dict[str, Path]) -> None:
    """The program has gone from everybody's folder, and somebody has put another one there."""
    (tmp_path / "venv").chmod(0o777)
    hint = remedy(tmp_path, places)
    assert "tap_waiter.py" in hint
    assert "venv" not in hint
    (tmp_path / "new").chmod(0o777)
    assert remedy(tmp_path, places).startswith("install qemu-netwrap 9.9.9 again")


@pytest.mark.parametrize("path", ["", "python3", "/\0", "/" + "x" * 5000])
def test_a_path_that_is_none_is_not_told(
    tmp_path: Path, places: dict[str, Path], path: str
) -> None:
    hint = remedy(tmp_path, dict.fromkeys(places, path))
    assert hint.startswith("install qemu-netwrap 9.9.9 again")


def test_keeper_and_waiter_have_one_format() -> None:
    assert waiter.FORMATS == tap_waiter.FORMATS == (f"format={kept_code.FORMAT}",)


def test_a_waiter_refuses_words_of_another_format(tmp_path: Path) -> None:
    words = (sys.executable, "-I", "-S", waiter.__file__, str(tmp_path), "0", "format=99", "/x")
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: the keeper was of another version: run qemu-netwrap gc\n"


def test_a_launcher_refuses_messages_of_another_format() -> None:
    launcher, keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with launcher, keeper:
        keeper.send(b"keeper\tformat=99")
        with pytest.raises(NetwrapError, match="the keeper speaks format 99"):
            provision._receive(launcher, lambda *_: None)
