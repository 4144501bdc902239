"""Completion in the real shells, by the installed files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.netns import Host

HERE = Path(__file__).parent
PREFIX = Path(sys.prefix)
SHELLS = {
    "bash": ("bash", "--norc", str(HERE / "drive.bash")),
    "zsh": ("zsh", "-f", str(HERE / "drive.zsh")),
    "fish": ("fish", "-N", str(HERE / "drive.fish")),
}
CONFIG = "/etc/qemu-netwrap/config.toml"
# A QEMU that no shell has a completion for.
OWN = """\
#!/bin/sh
echo asked >>"$0.asked"
echo '-h or -help     display this help and exit'
echo '-fda/-fdb file  use file as floppy disk'
echo '-machine [type=]name'
"""


class Shell:
    """A shell on a simulated machine, with a home of its own."""

    def __init__(self, host: Host, name: str, home: Path) -> None:
        self.host = host
        self.name = name
        self.home = home
        self.files = home / "files"
        self.files.mkdir()
        for file in ("disk.img", "net.toml"):
            (self.files / file).touch()

    def offers(self, line: str) -> set[str]:
        """Return what is offered at the end of LINE; a value without the key before it."""
        env = {
            "PATH": f"{PREFIX / 'bin'}:{self.home}:{os.environ['PATH']}",
            "SHARE": str(PREFIX / "share"),
            "OUT": str(self.home),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_DATA_HOME": str(self.home / "data"),
        }
        for each in ("ready", "finished", "offered"):
            (self.home / each).unlink(missing_ok=True)
        done = self.host.run(*SHELLS[self.name], line, env=env, cwd=self.files, timeout=120)
        assert "rror" not in done.stderr
        return {word.strip().rpartition("network=")[2] for word in done.stdout.splitlines()} - {""}


@pytest.fixture(params=SHELLS)
def shell(host: Host, request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    host.write(CONFIG, "[networks.office]\nmode = 'nat'\n", mode=0o644)
    return Shell(host, request.param, tmp_path)


# What is typed behind qemu-netwrap, what is offered there, and what not.
LINES = (
    ("", "plan ps stop wait gc network config doctor qemu-system-x86_64", "disk.img"),
    ("--", "-- --network --config --run-as --quiet --verbose --debug --version --help", "ps"),
    ("-q --netw", "--network", "--debug"),
    ("--network ", "office nat host-only", "ps"),
    ("--config ", "net.toml", "ps"),
    ("--run-as roo", "root", "ps"),
    ("--keep-env PAT", "PATH", "ps"),
    ("-- qemu-system-x", "qemu-system-x86_64", "ps"),
    ("-- ", "qemu-system-x86_64", "ps"),
    ("network ", "list show up down", "office"),
    ("network up of", "office", "nat"),
    ("network down ", "office nat host-only", "up"),
    ("exec ", "office nat host-only", "plan"),
    ("exec office --", "-- --help", "--json"),
    ("exec office -- qemu-system-x", "qemu-system-x86_64", "office"),
    ("exec office ls dis", "disk.img", "office"),
    ("exec office -- ls dis", "disk.img", "office"),
    ("network list -", "--json --help", ""),
    ("config ", "check show", ""),
    ("config check ", "disk.img", ""),
    ("config show --j", "--json", ""),
    ("doctor -", "--json --help", ""),
    ("stop --t", "--timeout", ""),
    ("stop --timeout ", "", "office"),
    ("network show --json of", "office", "nat"),
    ("network show -- of", "office", "nat"),
    ("network show office ", "", "office"),
    ("hooks ", "install remove status", ""),
    ("hooks status --", "--root --json --help", "--timeout"),
    ("shim install somewhere qemu-system-x", "qemu-system-x86_64", ""),
    ("vfio ", "list bind unbind", ""),
    ("plan --", "--json", ""),
    ("plan --json qemu-system-x86_64 -netd", "-netdev", "-nic"),
    ("-q qemu-system-x86_64 -netd", "-netdev", "-nic"),
    ("-- qemu-system-x86_64 -S -nic ", "nat host-only tap bridge user none", "disk.img"),
    ("-- qemu-system-x86_64 -netdev tap,id=n,network=of", "office", "nat"),
    ("-- qemu-system-x86_64 -hda dis", "disk.img", "nat"),
    ("qemu-system-x86_64 dis", "disk.img", "nat"),
)
# Each driver has `alias qemu='qemu-netwrap … -- qemu-system-x86_64'`.
ALIASED = (("-netd", "-netdev"), ("dis", "disk.img"), ("-nic tap,network=of", "office"))


def test_offers(shell: Shell) -> None:
    found = {line: shell.offers(f"qemu-netwrap {line}") for line, _, _ in LINES}
    missing = {line: set(offered.split()) - found[line] for line, offered, _ in LINES}
    assert {line: words for line, words in missing.items() if words} == {}
    assert [line for line, _, never in LINES if never in found[line]] == []


def test_aliases(shell: Shell) -> None:
    found = {line: shell.offers(f"qemu {line}") for line, _ in ALIASED}
    assert [line for line, offered in ALIASED if offered not in found[line]] == []


def test_a_qemu_without_a_completion_of_its_own_is_asked_once(shell: Shell) -> None:
    program, asked = shell.home / "qemu-own", shell.home / "qemu-own.asked"
    program.write_text(OWN, "utf-8")
    program.chmod(0o755)
    options = {"-h", "-help", "-fda", "-fdb", "-machine"}
    assert shell.offers("qemu-netwrap -- qemu-own -") == options
    assert shell.offers("qemu-netwrap -- qemu-own -S -f") == {"-fda", "-fdb"}
    assert asked.read_text("utf-8") == "asked\n"
    later = asked.stat().st_mtime + 10
    os.utime(program, (later, later))  # it has been upgraded
    shell.offers("qemu-netwrap -- qemu-own -")
    assert asked.read_text("utf-8") == "asked\nasked\n"


@pytest.mark.parametrize("whose", ["file", "folder", "link"])
def test_root_does_not_ask_a_users_qemu(shell: Shell, whose: str) -> None:
    """What an ordinary user could exchange is not run, as root, by pressing TAB."""
    folder = shell.home / "theirs"
    folder.mkdir()
    program = folder / "qemu-theirs"
    program.write_text(OWN, "utf-8")
    program.chmod(0o755)
    typed = program
    assert shell.offers(f"qemu-netwrap -- {program} -S -f") == {"-fda", "-fdb"}
    (folder / "qemu-theirs.asked").unlink()
    later = program.stat().st_mtime + 10
    os.utime(program, (later, later))
    if whose == "link":
        typed = shell.home / "qemu-link"
        typed.symlink_to(program)
    os.chown(folder if whose == "folder" else program, 65534, 65534)
    assert shell.offers(f"qemu-netwrap -- {typed} -S -f") == set()
    assert not (folder / "qemu-theirs.asked").exists()


def test_another_program_is_not_asked(shell: Shell) -> None:
    program = shell.home / "mine"
    program.write_text(OWN, "utf-8")
    program.chmod(0o755)
    shell.offers("qemu-netwrap -- mine -")
    assert not (shell.home / "mine.asked").exists()


def test_runs(shell: Shell) -> None:
    child = shell.host.popen(COMMAND, "--", QEMU, *IDLE, "-name", "web", "-nic", "tap,br=br7")
    wait_for(lambda: "running" in netwrap(shell.host, "ps").stdout, "QEMU")
    assert shell.offers("qemu-netwrap stop ") == {str(child.pid), "web"}
    assert shell.offers("qemu-netwrap wait w") == {"web"}
    netwrap(shell.host, "stop", "web", check=True)
    child.wait()
