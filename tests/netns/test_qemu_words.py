"""The table of option words against the installed QEMU: the judge."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from qemu_netwrap.core.qemu_options import WITH_ARGUMENT, WITHOUT_ARGUMENT, parse_help

QEMU = shutil.which("qemu-system-x86_64")

pytestmark = pytest.mark.skipif(QEMU is None, reason="there is no qemu-system-x86_64")

END = "-end-of-the-words"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [QEMU or "", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def trial(word: str) -> list[str]:
    """Words that end in "WORD-is-misjudged: invalid option" if the table is wrong about WORD.

    With an argument, WORD swallows the marker; without one, it leaves `-name` to do so.
    """
    marker = f"-{word}-is-misjudged"
    return [f"-{word}", marker] if word in WITH_ARGUMENT else [f"-{word}", "-name", marker]


def test_table_agrees_with_qemu() -> None:
    """QEMU looks all words up before it acts on any, and stops at the first it does not know."""
    words = sorted(WITH_ARGUMENT | WITHOUT_ARGUMENT)
    while True:
        said = run(*(part for word in words for part in trial(word)), END).stderr
        refused = said.rpartition(": invalid option")[0].rpartition(": ")[2]
        if refused.removeprefix("-") not in words:
            break
        words.remove(refused.removeprefix("-"))  # QEMU has no such word: try the others
    assert refused == END, said
    assert len(words) > 100
    assert {"netdev", "nic", "net", "device", "daemonize"} <= set(words)


def test_its_help_names_no_word_the_table_lacks() -> None:
    with_argument, without_argument = parse_help(run("-help").stdout)
    assert len(with_argument) > 70
    assert with_argument <= WITH_ARGUMENT
    assert without_argument <= WITHOUT_ARGUMENT
