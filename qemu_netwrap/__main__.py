"""The program's entry: a launch goes straight through, all else goes to the command line."""

from __future__ import annotations

import sys

from qemu_netwrap.core.errors import NetwrapError


def main() -> None:
    """Run the program. Ends in QEMU, or exits."""
    argv = sys.argv[1:]
    debug = False
    try:
        from qemu_netwrap.face import words

        typed = words.split(argv)
        debug = "--debug" in typed.options
        if typed.command or not typed.qemu:
            from qemu_netwrap.face import cli

            cli.run(argv)
        else:
            from qemu_netwrap.life.launch import launch

            launch(words.request(typed))
    except NetwrapError as error:
        if debug:
            raise
        sys.stderr.write(f"qemu-netwrap: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        sys.exit(error.status)


if __name__ == "__main__":
    main()
