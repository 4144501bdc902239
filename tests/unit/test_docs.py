"""What can be typed is documented: man pages, completions and docs/; links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from typer.core import TyperGroup, TyperOption

from qemu_netwrap.cli import main
from qemu_netwrap.config import parse
from qemu_netwrap.model.network import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MAN = ROOT / "docs" / "man"
PAGES = ("qemu-netwrap.1", "qemu-netwrap.toml.5")
REFERENCE = ROOT / "docs" / "reference"
TEXTS = sorted(
    str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
COMPLETIONS = ("qemu-netwrap.bash", "_qemu-netwrap", "qemu-netwrap.fish")
SECTIONS = (
    *("NAME", "SYNOPSIS", "DESCRIPTION", "WORDS", "OPTIONS", "COMMANDS", "EXIT STATUS"),
    *("ENVIRONMENT", "FILES", "EXAMPLES", "NOTES", "SEE ALSO"),
)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - click's, which typer has inside
    """Yield every command with its words; the program itself has none."""
    yield path, group
    if isinstance(group, TyperGroup):
        for name, inner in group.commands.items():
            yield from commands(inner, (*path, name))


TYPED = dict(commands(typer.main.get_command(main.app)))
WORDS = sorted({" ".join(path) for path in TYPED if path})
OPTIONS = sorted(
    {
        max(param.opts, key=len)
        for command in TYPED.values()
        for param in command.params
        if isinstance(param, TyperOption) and not param.hidden
    }
    | {"--help"}
)


def shown(page: str) -> str:
    """Return a man page as a reader sees it, in one line."""
    words = ("mandoc", "-T", "ascii", "-O", "width=200", str(MAN / page))
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return " ".join(re.sub(".\b", "", text).split())


def has(text: str, word: str) -> bool:
    """Whether a word stands in a text by itself."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def missing(text: str, words: list[str]) -> list[str]:
    return [word for word in words if not has(text, word)]


def test_there_is_something_to_document() -> None:
    assert {"network up", "config show", "doctor"} <= set(WORDS)
    assert {"--network", "--json", "--timeout", "--help"} <= set(OPTIONS)


@pytest.mark.parametrize("page", PAGES)
def test_man_pages_have_no_mistakes(page: str) -> None:
    words = ("mandoc", "-T", "lint", str(MAN / page))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_man_page_has_every_section_in_order() -> None:
    text = (MAN / PAGES[0]).read_text("utf-8")
    assert tuple(re.findall(r"^\.SH (.+)$", text, re.MULTILINE)) == SECTIONS


def test_man_page_has_every_command_and_option() -> None:
    text = shown(PAGES[0])
    leaves = [" ".join(p) for p, c in TYPED.items() if p and not isinstance(c, TyperGroup)]
    assert missing(text, [*leaves, *OPTIONS]) == []


def test_man_page_of_the_configuration_has_every_key() -> None:
    assert missing(shown(PAGES[1]), [*parse.keys(), *parse.TOP, *MODES]) == []


def test_reference_has_every_command_option_and_key() -> None:
    text = (REFERENCE / "commands.md").read_text("utf-8")
    leaves = [p[-1] for p, c in TYPED.items() if p and not isinstance(c, TyperGroup)]
    assert missing(text, [*leaves, *OPTIONS]) == []
    text = (REFERENCE / "configuration.md").read_text("utf-8")
    assert missing(text, [*parse.keys(), *parse.TOP]) == []


def test_readme_is_short_and_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    first = sorted({path[0] for path in TYPED if path} - {"help"})
    assert missing(text, first) == []


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text("utf-8"))
    found = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


def links(page: Path) -> Iterator[str]:
    """Yield where a page's links and pictures lead within the tree."""
    text = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", page.read_text("utf-8"))
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    yield from (target for each in found if (target := "".join(each)) and "://" not in target)


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / page
    lost = []
    for link in links(here):
        place, _, anchor = link.partition("#")
        target = (here.parent / place).resolve() if place else here
        if not target.exists() or (anchor and anchor not in headings(target)):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_index() -> None:
    docs = ROOT / "docs"
    linked = {(docs / link.partition("#")[0]).resolve() for link in links(docs / "README.md")}
    pages = {page for page in docs.rglob("*.md") if page.parent.name != "decisions"}
    assert pages - linked == {docs / "README.md"}


@pytest.mark.parametrize("file", COMPLETIONS)
def test_completions_have_every_command_and_option(file: str) -> None:
    text = (ROOT / "completions" / file).read_text("utf-8")
    words = [word for path in TYPED for word in path]
    assert missing(text, [*words, *OPTIONS]) == []


def test_wheel_installs_them() -> None:
    files = {Path(str(path)).name for path in metadata.files("qemu-netwrap") or ()}
    assert {*PAGES, "_qemu-netwrap", "qemu-netwrap.fish"} <= files
