"""What root reads of a user's `ps --json` is a stranger's text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qemu_netwrap.cli import render
from qemu_netwrap.model.run import PortForward
from qemu_netwrap.runtime import users_runs
from qemu_netwrap.runtime.status import Lease, NetworkStatus, NicStatus, RunStatus

NIC = NicStatus(
    "n0",
    "qn1-0",
    "nat",
    "qn-nat",
    ("52:54:00:00:00:01",),
    ("10.0.0.2",),
    1,
    2,
    (PortForward("tcp", "", 8080, "", 80),),
)
RUN = RunStatus("17", "web", "running", 17, 1.5, 0.0, 4096, "qemu", (NIC,), (), ("fault",))
LEASE = Lease("52:54:00:00:00:01", "10.0.0.2", "web", 0)
NETWORK = NetworkStatus(
    "nat", "nat", "qn-nat", "10.0.0.1/24", "", ("17",), False, ("qn1-0",), (LEASE,), 18, "", ()
)


def said(**changes: Any) -> bytes:
    run = {**render.plain(RUN), **changes}
    return json.dumps({"runs": [run], "networks": [render.plain(NETWORK)]}).encode()


def test_what_ps_prints_is_read_back() -> None:
    assert users_runs.read("al", said()) == users_runs.Look("al", (RUN,), (NETWORK,))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"runs": [], "networks": 1}',
        b'{"runs": [5], "networks": []}',
        b"9" * 5000,
        said(pid="17"),
        said(pid=-1),
        said(pid=1 << 70),
        said(pid=True),
        said(uptime=float("nan")),
        said(uptime=float("inf")),
        said(name=None),
        said(nics=[{}]),
        said(faults="x"),
    ],
)
def test_what_is_none_of_its_output_is_an_error(answer: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        users_runs.read("al", answer)


def test_no_character_is_left_for_a_terminal_to_act_on() -> None:
    look = users_runs.read("al", said(name="\x1b[2J\nroot \ud800\u202e", faults=["a\nb"]))
    shown = render.ps_text([look], users=True)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert r"\u001b[2J\nroot" in shown
    assert all(line.startswith(("USER", "al ", "al:", "")) for line in shown.split("\n"))


def test_there_is_an_end_to_what_counts() -> None:
    many = {"runs": [render.plain(RUN)] * 10_000, "networks": []}
    look = users_runs.read("al", json.dumps(many).encode())
    assert len(look.runs) == 1000
    assert len(users_runs.read("al", said(name="x" * 10_000)).runs[0].name) == 256
