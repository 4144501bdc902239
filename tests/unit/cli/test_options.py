"""The table of options and commands: typer has what stands in it, and so has all that is made."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
import typer.testing
from typer.core import TyperArgument, TyperGroup, TyperOption

from qemu_netwrap.cli import declare, main, options, overview, splitter
from qemu_netwrap.config import key_texts, parse
from qemu_netwrap.qemu import command_line, netdev_options, netdev_schema, network_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[3]
GENERATE = ROOT / "tools" / "generate.py"
KEYS_PAGE = "docs/man/qemu-netwrap.toml.5"
EVERY = (options.PROGRAM_ITSELF, *options.COMMANDS)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - click's, which typer has inside
    """Yield typer's commands and groups by their words; the program itself has none."""
    yield " ".join(path), group
    if isinstance(group, TyperGroup):
        for name, inner in group.commands.items():
            yield from commands(inner, (*path, name))


TYPED = dict(commands(typer.main.get_command(main.app)))


def test_typer_has_the_commands_of_the_table_and_no_others() -> None:
    groups = {group.words for group in options.GROUPS}
    assert set(TYPED) == groups | {command.words for command in EVERY}
    assert {words.partition(" ")[0] for words in TYPED if " " in words} == groups


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.words or "itself")
def test_typer_has_the_options_of_the_table(command: options.Command) -> None:
    found = [p for p in TYPED[command.words].params if isinstance(p, TyperOption)]
    expected = [option for option in command.options if option != options.HELP]
    assert {(*p.opts, p.metavar or "", p.help) for p in found} == {
        (*option.names, option.value, declare.plain(option.help)) for option in expected
    }
    assert [p.name for p in found if command.words == ""] == [
        option.field for option in expected if command.words == ""
    ]
    assert all(p.is_flag != bool(command.option(max(p.opts, key=len)).value) for p in found)


@pytest.mark.parametrize("command", options.COMMANDS, ids=lambda command: command.words)
def test_typer_has_the_arguments_of_the_table(command: options.Command) -> None:
    found = [p for p in TYPED[command.words].params if isinstance(p, TyperArgument)]
    assert [(p.metavar, p.help, p.required, p.nargs == -1) for p in found] == [
        (a.usage, declare.plain(a.help), not a.is_optional, a.is_list) for a in command.arguments
    ]


@pytest.mark.parametrize("words", ["", *(group.words for group in options.GROUPS)])
def test_lists_of_commands_show_whole_sentences(words: str) -> None:
    """Typer cuts those that do not fit, and ends them with three dots."""
    runner = typer.testing.CliRunner(env={"COLUMNS": "80"})
    shown = runner.invoke(main.app, [*words.split(), "--help"]).stdout.splitlines()
    assert len(shown) > 8
    cut = [line for line in shown if line.endswith("...") and "qemu-netwrap " not in line]
    assert cut == []
    assert max(map(len, shown)) <= 80


def test_what_is_completed_has_a_kind() -> None:
    of_options = {o.kind for command in EVERY for o in command.options if o.value}
    of_arguments = {a.kind for command in EVERY for a in command.arguments}
    assert of_options | of_arguments == set(options.KINDS)


@pytest.mark.parametrize("typed", options.NETDEVS)
def test_what_is_completed_behind_nic_can_be_typed(typed: str) -> None:
    net = netdev_options.parse(
        command_line.Option("nic", 1, f"{typed}x" if "=" in typed else typed)
    )
    assert net is not None
    assert net.type in {*netdev_schema.TYPES, *netdev_options.OUR_TYPES, netdev_options.SRIOV}
    assert "Invalid parameter" not in netdev_options.fault(net)


def test_generated_parts_are_up_to_date() -> None:
    words = (sys.executable, str(GENERATE), "--check")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the generator as a module; it works on the installed table."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_from_options(generate: ModuleType) -> list[tuple[str, Any]]:
    """Return the files that options and commands stand in, with the makers of their parts."""
    parts = [(name, parts) for name, parts in generate.PARTS.items() if name != KEYS_PAGE]
    assert len(parts) == len(generate.PARTS) - 1 == 5
    return parts


def test_a_new_option_shows_up_in_all_that_is_made(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = options.Option(("-z", "--zoo-of"), "Help about it.", "NAME", options.NETWORK)
    itself = options.PROGRAM_ITSELF
    monkeypatch.setattr(options, "PROGRAM_ITSELF", itself.replace(options=(*itself.options, new)))
    for name, parts in made_from_options(generate):
        made = generate.filled((ROOT / name).read_text("utf-8"), parts)
        assert "zoo-of" in made.replace("\\-", "-"), name


def test_a_new_command_shows_up_in_all_that_is_made(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument = options.Argument("NAME", "A network.", options.NETWORK)
    own = options.Option(("--zeal",), "Hurry.")
    new = options.Command("zoo", "Count the animals.", (argument,), (own,))
    monkeypatch.setattr(options, "COMMANDS", (*options.COMMANDS, new))
    for name, parts in made_from_options(generate):
        made = generate.filled((ROOT / name).read_text("utf-8"), parts)
        assert "zoo" in made, name
        assert "--zeal" in made.replace("\\-", "-") or name.endswith("splitter.py"), name


def test_what_is_marked_in_texts_ends() -> None:
    texts = [*key_texts.TOP.values(), *key_texts.KEYS.values()]
    for command in EVERY:
        texts += [command.help, command.more, *(a.help for a in command.arguments)]
        texts += [text for option in command.options for text in (option.help, option.more)]
    assert [text for text in texts if text.count("`") % 2 or "\\" in text] == []


def test_every_key_of_the_configuration_has_a_text() -> None:
    assert set(key_texts.KEYS) == set(parse.keys())
    assert set(key_texts.TOP) == set(parse.TOP)


def test_a_part_without_its_marker_is_a_mistake(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="begin generated"):
        generate.filled("nothing\n", {"words": lambda: iter(())})


def test_the_overview_has_every_command_once() -> None:
    tops = [words for subject in options.SUBJECTS for words in subject.words]
    assert sorted(tops) == sorted(options.subcommands(""))
    assert all(subject.examples for subject in options.SUBJECTS)


@pytest.mark.parametrize(
    "example", [each for subject in options.SUBJECTS for each in subject.examples]
)
def test_the_overviews_examples_are_what_the_program_takes(example: str) -> None:
    name, *words = example.split()
    typed = splitter.split(words)
    assert name == "qemu-netwrap"
    assert typed.command in splitter.COMMANDS or splitter.request(typed).words == typed.qemu
    if typed.command == "":
        line = command_line.parse(("qemu-system-x86_64", *typed.qemu))
        assert network_options.interpret(line) is not None


def test_the_overview_fits_a_terminal() -> None:
    for shown in (overview.text(), overview.text(with_options=True)):
        assert max(map(len, shown.splitlines())) <= 80
        assert "`" not in shown
    assert "--bind-group" in shown
