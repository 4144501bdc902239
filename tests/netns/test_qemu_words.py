"""The table of option words against the installed QEMU: the judge."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from qemu_netwrap.qemu.known_options import WITH_ARGUMENT, WITHOUT_ARGUMENT, parse_help

QEMU = shutil.which("qemu-system-x86_64")

pytestmark = pytest.mark.skipif(QEMU is None, reason="there is no qemu-system-x86_64")

END = "-end-of-the-words"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [QEMU or "", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def trial(word: str, *, argument: bool) -> list[str]:
    """Words that end in "WORD-is-misjudged: invalid option" if the kind of WORD is wrong.

    With an argument, WORD swallows the marker; without one, it leaves `-name` to do so.
    """
    marker = f"-{word}-is-misjudged"
    return [f"-{word}", marker] if argument else [f"-{word}", "-name", marker]


def test_table_and_help_agree_with_qemu() -> None:
    """QEMU looks all words up before it acts on any, and stops at the first it does not know."""
    with_argument, without_argument = parse_help(run("-help").stdout)
    kinds = dict.fromkeys(WITH_ARGUMENT | with_argument, True)
    kinds |= dict.fromkeys(WITHOUT_ARGUMENT | without_argument, False)
    while True:
        trials = (trial(word, argument=kinds[word]) for word in sorted(kinds))
        said = run(*(part for words in trials for part in words), END).stderr
        refused = said.rpartition(": invalid option")[0].rpartition(": ")[2].removeprefix("-")
        if refused not in WITH_ARGUMENT | WITHOUT_ARGUMENT:
            break
        del kinds[refused]  # QEMU has no such word: try the others
    assert f"-{refused}" == END, said
    assert len(kinds) > 100
    assert {"netdev", "nic", "net", "device", "daemonize"} <= set(kinds)


def test_help_tells_what_the_table_does_not_know() -> None:
    """Words that went are refused, those of this QEMU alone are found in its help."""
    known = frozenset().union(*parse_help(run("-help").stdout))
    for word in ("redir", "tftp", "chroot", "run-with", "no-hpet"):
        refused = f"-{word}: invalid option" in run(f"-{word}", "-end").stderr
        assert refused == (word not in known)
