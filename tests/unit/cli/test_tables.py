"""Tables fit a terminal: what is too long for its column begins at an earlier one."""

from __future__ import annotations

from qemu_netwrap.cli import tables

SIX = "fd82:af4f:cde8:d0fb:5054:ff:fead:6dff"


def test_a_cells_further_lines_stand_below_it() -> None:
    rows = [("RUN", "ADDRESS"), ("1", f"10.0.0.2\n{SIX}"), ("22", "-")]
    shown = f"RUN  ADDRESS\n1    10.0.0.2\n     {SIX}\n22   -"
    assert tables.columns(rows) == shown


def test_one_that_is_too_long_there_begins_earlier() -> None:
    rows = [("RUN", "NIC", "NETWORK", "MAC", "ADDRESS")]
    rows += [("1234567", "qn1234567-0", "nat", "52:54:00:ad:6d:ff", f"10.208.251.24\n{SIX}")]
    *_, last = tables.columns(rows).split("\n")
    assert last == f"{'':31}{SIX}"
    assert max(map(len, tables.columns(rows).split("\n"))) <= 80


def test_one_longer_than_a_line_begins_it() -> None:
    assert tables.columns([("A", f"b\n{'x' * 90}")]).endswith(f"\n{'x' * 90}")
