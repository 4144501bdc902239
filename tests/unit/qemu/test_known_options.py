"""The table of QEMU's option words, and what can be read from a QEMU's own `-help`."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_netwrap.qemu.known_options import SOMETIMES, WITH_ARGUMENT, WITHOUT_ARGUMENT, parse_help

DATA = Path(__file__).parents[1] / "data"

# What `-help` of an x86_64 QEMU keeps to itself: hidden, or of another architecture.
UNLISTED = set(
    """
    M g old-param prom-env qtest qtest-log semihosting semihosting-config
    """.split()
)


def test_every_word_is_of_one_kind_and_without_dashes() -> None:
    words = WITH_ARGUMENT | WITHOUT_ARGUMENT
    assert not WITH_ARGUMENT & WITHOUT_ARGUMENT
    assert not [word for word in words if word.startswith("-") or not word.strip()]


@pytest.mark.parametrize("word", ["netdev", "nic", "net", "device", "M", "g"])
def test_takes_an_argument(word: str) -> None:
    assert word in WITH_ARGUMENT


@pytest.mark.parametrize("word", ["h", "S", "s", "daemonize", "preconfig"])
def test_takes_no_argument(word: str) -> None:
    assert word in WITHOUT_ARGUMENT


@pytest.mark.parametrize(
    ("version", "with_", "without"),
    [
        (
            "7.2",
            "chroot rotate runas",
            "async-teardown audio-help no-acpi no-hpet portrait singlestep",
        ),
        ("10", "run-with shim", "jitdump perfmap"),
    ],
)
def test_help_has_the_words_of_the_table_and_those_of_its_version(
    version: str, with_: str, without: str
) -> None:
    found = parse_help((DATA / f"qemu-{version}-help.txt").read_text())
    assert found[0] == WITH_ARGUMENT - SOMETIMES - UNLISTED | set(with_.split())
    assert found[1] == WITHOUT_ARGUMENT - SOMETIMES - UNLISTED | set(without.split())


@pytest.mark.parametrize("word", "redir tftp soundhw show-cursor run-with localtime runas".split())
def test_what_came_or_went_is_for_qemu_to_know(word: str) -> None:
    assert word in SOMETIMES


@pytest.mark.parametrize(
    ("line", "with_", "without"),
    [
        ("-netdev user,id=str[,ipv4=on|off]", {"netdev"}, set()),
        ("-m [size=]megs[,slots=n]", {"m"}, set()),
        ("-dtb    file    use 'file' as device tree image", {"dtb"}, set()),
        ("-fda/-fdb file  use 'file' as floppy disk 0/1 image", {"fda", "fdb"}, set()),
        ("-watchdog-action reset|shutdown", {"watchdog-action"}, set()),
        ("-semihosting-config [enable=on|off]", {"semihosting-config"}, set()),
        ("-h or -help     display this help and exit", set(), {"h", "help"}),
        ("-S              freeze CPU at startup", set(), {"S"}),
        ("--preconfig     pause QEMU before machine is initialized", set(), {"preconfig"}),
        ("-async-teardown enable asynchronous teardown", set(), {"async-teardown"}),
        ("-only-migratable     allow only migratable devices", set(), {"only-migratable"}),
        ("-no-user-config", set(), {"no-user-config"}),
        ("                -indented", set(), set()),
        ("ctrl-alt-f      toggle full screen", set(), set()),
    ],
)
def test_reads_a_line(line: str, with_: set[str], without: set[str]) -> None:
    assert list(map(set, parse_help(line))) == [with_, without]


def test_one_line_with_an_argument_is_enough() -> None:
    text = "-new            explained\n-new value\n"
    assert parse_help(text) == (frozenset({"new"}), frozenset())
