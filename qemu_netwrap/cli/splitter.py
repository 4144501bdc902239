"""Options before QEMU's command line, read without typer, which costs more than a whole launch.

They are those of the table in `cli.options`, which no launch loads: `make generate` writes into
this file what a launch must know of it.
"""

from __future__ import annotations

from qemu_netwrap import model, qemu
from qemu_netwrap.errors import UsageError
from qemu_netwrap.record import Record
from qemu_netwrap.runtime.launch_options import LaunchOptions

# begin generated words: by tools/generate.py, from cli/options.py
COMMANDS = frozenset(
    "plan ps stop wait exec gc network config doctor help ifup ifdown hooks shim vfio".split()
)
WITH_VALUE = {
    "--network": "network",
    "--config": "config",
    "--run-as": "run_as",
    "--keep-env": "keep_env",
}
LISTS = frozenset("--keep-env".split())
FLAGS = {
    "--yes-uplink": "yes_uplink",
    "--bind-group": "bind_group",
    "--force-uplink": "force_uplink",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--debug": "debug",
}
INFORM = frozenset("--version -h --help".split())
# end generated
# Other programs' names for what a command of qemu-netwrap does.
ALIASES = {
    "list": "ps", "ls": "ps", "status": "ps", "runs": "ps", "top": "ps",
    "kill": "stop", "rm": "stop", "delete": "stop", "destroy": "stop", "shutdown": "stop",
    "poweroff": "stop", "halt": "stop", "quit": "stop", "end": "stop",
    "clean": "gc", "cleanup": "gc", "prune": "gc",
    "check": "doctor", "test": "doctor", "diagnose": "doctor",
    "dry-run": "plan", "preview": "plan", "show": "plan", "enter": "exec", "shell": "exec",
    "up": "network up", "down": "network down", "net": "network", "networks": "network list",
    "install": "hooks install", "configure": "config", "settings": "config show",
    "version": "--version", "man": "help", "usage": "help",
}  # fmt: skip
# The endings of disk images. A program of such a name can still be started as `-- ./name.raw -S`.
IMAGES = tuple(".qcow2 .qcow .img .raw .iso .vmdk .vdi .vhd .vhdx .qed".split())


class Typed(Record):
    """A split command line: qemu-netwrap's options, then its command or QEMU's command line."""

    options: tuple[str, ...]
    command: str = ""
    qemu: tuple[str, ...] = ()


def split(argv: list[str]) -> Typed:
    """Split ARGV where QEMU's command line begins.

    That is behind `--`, or else at the first program, image or option of QEMU's.
    """
    at = 0
    while at < len(argv):
        word = argv[at]
        name = word.partition("=")[0]
        if word == "--":
            return Typed(tuple(argv[:at]), "", tuple(argv[at + 1 :]))
        if word in INFORM:
            return Typed(tuple(argv[:at]), word)
        if not word.startswith("-"):
            if word in COMMANDS:
                return Typed(tuple(argv[:at]), word)
            if not (is_program(word) or is_image(word)):
                raise _unknown_command(word)
            return Typed(tuple(argv[:at]), "", tuple(argv[at:]))
        if name not in WITH_VALUE and word not in FLAGS:
            if not _is_qemus(word):
                raise _unknown_option(word)
            return Typed(tuple(argv[:at]), "", tuple(argv[at:]))
        at += 2 if word in WITH_VALUE else 1
    return Typed(tuple(argv))


def is_program(word: str) -> bool:
    """Whether WORD, in the place of a command, names a QEMU to start.

    Any other program must follow `--`: a typing error must not start a program of that name.
    """
    return word.startswith("qemu") or word == "kvm" or "/" in word


def is_image(word: str) -> bool:
    """Whether WORD, in the place of a command, names a disk image, by its ending."""
    return word.lower().endswith(IMAGES)


def leaves_qemu_out(words: tuple[str, ...]) -> bool:
    """Whether QEMU's command line begins with an option or an image instead of a program."""
    return words[0].startswith("-") or is_image(words[0])


def _is_qemus(word: str) -> bool:
    """Whether WORD is an option of QEMU's, with one dash.

    QEMU takes two as well, but `--net lab` is rather meant for `--network lab`.
    """
    return word[1:] in qemu.known_options.WITH_ARGUMENT | qemu.known_options.WITHOUT_ARGUMENT


def _unknown_command(word: str) -> UsageError:
    """Return the error for a first word that is neither a command nor a QEMU."""
    meant = ALIASES.get(word.lower())
    near = f"did you mean {meant}? " if meant else model.suggest.suggestion(word, COMMANDS)
    hint = f"{near}see qemu-netwrap --help; a program stands behind --: qemu-netwrap -- {word}"
    return UsageError(f"{word}: unknown command", hint)


def _unknown_option(word: str) -> UsageError:
    """Return the error for an option that is neither the launcher's nor QEMU's."""
    near = model.suggest.suggestion(word.partition("=")[0], [*WITH_VALUE, *FLAGS, *INFORM])
    qemus = f"QEMU's own stand behind --: qemu-netwrap -- {word}" if _is_qemus(word[1:]) else ""
    hint = f"{near}{qemus or 'see qemu-netwrap --help'}"
    return UsageError(f"{word}: unknown option", hint)


def request(typed: Typed) -> LaunchOptions:
    """Return the options of the launch that was typed. Raises `UsageError`."""
    values: dict[str, str | bool] = {}
    words = iter(typed.options)
    for word in words:
        name, equals, value = word.partition("=")
        if word in FLAGS:
            values[FLAGS[word]] = True
            continue
        text = value if equals else next(words, "")
        if not text:
            raise UsageError(f"{name}: a value is missing", "see qemu-netwrap --help")
        field = WITH_VALUE[name]
        values[field] = f"{values[field]},{text}" if name in LISTS and field in values else text
    return LaunchOptions(typed.qemu, **values)  # type: ignore[arg-type] # the tables give each its type
