"""Our own words before QEMU's."""

from __future__ import annotations

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from typer.core import TyperGroup, TyperOption

from qemu_netwrap.cli import main, splitter
from qemu_netwrap.cli.splitter import Typed
from qemu_netwrap.errors import UsageError
from qemu_netwrap.runtime.launch_options import LaunchOptions

QEMU = ["qemu-system-x86_64", "-nic", "nat", "-q", "--", "--network", "x"]


@pytest.mark.parametrize(
    "options", ["", "-q", "--quiet --debug", "--network lab", "--config=a=b -v", "--keep-env A"]
)
@pytest.mark.parametrize("cut", [[], ["--"]])
def test_qemus_words_are_all_that_follows(options: str, cut: list[str]) -> None:
    ours = options.split()
    assert splitter.split([*ours, *cut, *QEMU]) == Typed(tuple(ours), "", tuple(QEMU))


@given(st.lists(st.text(), min_size=1))
def test_nothing_after_the_dashes_is_ours(qemu: list[str]) -> None:
    assert splitter.split(["-q", "--", *qemu]) == Typed(("-q",), "", tuple(qemu))


@pytest.mark.parametrize("command", sorted(splitter.COMMANDS | splitter.INFORM))
def test_commands(command: str) -> None:
    assert splitter.split(["-v", command, "-x", "--", "y"]) == Typed(("-v",), command)
    assert splitter.split(["--", command]) == Typed((), "", (command,))
    assert splitter.split(["--network", command, "qemu"]) == Typed(
        ("--network", command), "", ("qemu",)
    )


@pytest.mark.parametrize("argv", [[], ["-q"], ["--"], ["-q", "--"], ["--network"]])
def test_no_qemu(argv: list[str]) -> None:
    typed = splitter.split(argv)
    assert (typed.command, typed.qemu) == ("", ())


@pytest.mark.parametrize("word", ["-x", "--nosuch", "--nosuch=1", "-qv", "--quiet=1", "-", "---"])
def test_unknown_options(word: str) -> None:
    with pytest.raises(UsageError, match="unknown option") as caught:
        splitter.split(["-q", word, "qemu"])
    assert caught.value.message.startswith(word)
    assert caught.value.hint


def test_request() -> None:
    typed = splitter.split(
        "--network=a=b --config c.toml --run-as me --config d.toml -q -v --debug qemu -S".split()
    )
    assert splitter.request(typed) == LaunchOptions(
        ("qemu", "-S"), "a=b", "d.toml", "me", quiet=True, verbose=True, debug=True
    )
    assert splitter.request(Typed(("--quiet", "--verbose"), "", ("q",))) == LaunchOptions(
        ("q",), quiet=True, verbose=True
    )
    assert splitter.request(Typed((), "", ("q",))) == LaunchOptions(("q",))


def test_variables_to_keep_add_up() -> None:
    typed = splitter.split("--keep-env A,B --run-as me --keep-env=C qemu".split())
    assert splitter.request(typed) == LaunchOptions(("qemu",), run_as="me", keep_env="A,B,C")


@pytest.mark.parametrize("word", ["qemu", "qemu-system-x86_64", "kvm", "./x", "/bin/true", "a/b"])
def test_programs(word: str) -> None:
    assert splitter.split(["-q", word, "-x"]) == Typed(("-q",), "", (word, "-x"))


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("reboot web", "qemu-netwrap -- reboot"),
        ("rm web", "did you mean stop?"),
        ("list", "did you mean ps?"),
        ("version", "did you mean --version?"),
        ("usage", "did you mean help?"),
        ("plann qemu", "did you mean plan?"),
        ("gx", "did you mean gc?"),
        ("kvmtool run", "qemu-netwrap -- kvmtool"),
        ("--net nic", "did you mean --network? QEMU's own stand behind --: qemu-netwrap -- --net"),
        ("", "qemu-netwrap --help"),
    ],
)
def test_what_is_neither_a_command_nor_a_qemu(typed: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        splitter.split(typed.split() or [""])
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "words", ["disk.img", "./disk.QCOW2 -S", "/srv/a.iso", "-nic nat disk.img", "-m 2G", "-S"]
)
@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_qemu_may_be_left_out(words: str, dashes: list[str]) -> None:
    typed = splitter.split(["-q", *dashes, *words.split()])
    assert typed == Typed(("-q",), "", tuple(words.split()))
    assert splitter.leaves_qemu_out(typed.qemu)


@pytest.mark.parametrize("word", ["qemu-system-x86_64", "kvm", "./qemu", "/bin/true"])
def test_a_program_is_no_image(word: str) -> None:
    assert not splitter.leaves_qemu_out((word, "disk.img"))


@pytest.mark.parametrize("options", [("--network",), ("-q", "--config="), ("--run-as", "")])
def test_a_value_is_missing(options: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="a value is missing") as caught:
        splitter.request(Typed(options, "", ("qemu",)))
    assert caught.value.hint


def test_options_and_commands_are_those_that_typer_knows() -> None:
    app = typer.main.get_command(main.app)
    assert isinstance(app, TyperGroup)
    assert set(app.commands) == splitter.COMMANDS
    options = [p for p in app.params if isinstance(p, TyperOption)]
    assert options == app.params
    flags = {word: p.name for p in options if p.is_flag for word in p.opts}
    assert flags.pop("--version") == "version"
    assert flags == splitter.FLAGS
    assert {w: p.name for p in options if not p.is_flag for w in p.opts} == splitter.WITH_VALUE
    assert {"words", "loaded", *splitter.WITH_VALUE.values(), *splitter.FLAGS.values()} == set(
        LaunchOptions.fields
    )
