"""The picture in README: an ordinary user's session, as it really ran, in SVG.

    make picture    writes docs/session-light.svg and docs/session-dark.svg

The user is one of a simulated machine with a small internet behind it. The guest is a Linux kernel
and a busybox, which `vm.cfg` names to QEMU.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab.guest import KERNEL_WORDS, QEMU, initramfs, kernel
from lab.netns import WEB_NAME, internet
from lab.terminal import Terminal
from lab.tool import COMMAND, netwrap
from lab.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.terminal_theme import TerminalTheme

DOCS: Final = Path(__file__).parents[2] / "docs"
THEMES: Final = {"light": DEFAULT_TERMINAL_THEME, "dark": SVG_EXPORT_THEME}
WIDTH: Final = 96
LAUNCH: Final = (
    f"qemu-netwrap -- {QEMU} -name web -nographic -readconfig vm.cfg \\",
    "    -nic nat,model=virtio,hostfwd=tcp::8080-:80",
)
JOB: Final = f"""
show() {{ echo "/ # $*"; "$@" 2>&1; }}
mkdir /www
echo "Hello from the guest" >/www/index.html
httpd -h /www
show dhcp eth0
show wget -qO- http://{WEB_NAME}/
report ready
read -r _
echo "/ # poweroff"
"""
MEANWHILE: Final = (
    "qemu-netwrap ps",
    "busybox wget -qO- http://localhost:8080/",
    "qemu-netwrap exec nat -- busybox wget -qO- http://web/",
)
AFTERWARDS: Final = ("qemu-netwrap wait; qemu-netwrap ps", "ip -br link")
# What a terminal obeys and does not show: the firmware clears it first.
_CONTROL: Final = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|c)|\r|\x07")


def screen(terminal: Terminal) -> str:
    """Return all that a terminal has shown so far, without what it obeys."""
    return _CONTROL.sub("", terminal.shown)


def shown(user: User, command: str) -> str:
    """Return what a command prints on the user's terminal."""
    with Terminal(user, "sh", "-c", real(command)) as terminal:
        terminal.child.wait()
        terminal.hang_up()
        return screen(terminal)


def real(command: str) -> str:
    """Return a command line with the program under test by its path."""
    return re.sub(r"\bqemu-netwrap\b", COMMAND, command)


@contextlib.contextmanager
def machine(user: User) -> Iterator[None]:
    """Write vm.cfg, which names the guest's kernel and image."""
    image = initramfs(JOB)
    try:
        keys = {
            "accel": "tcg",
            "kernel": user.lend(kernel()),
            "initrd": user.lend(image),
            "append": KERNEL_WORDS,
        }
        lines = "".join(f'  {key} = "{value}"\n' for key, value in keys.items())
        user.write("vm.cfg", f'[machine]\n{lines}[memory]\n  size = "128M"\n')
        yield
    finally:
        image.unlink()


def session() -> Iterator[tuple[str, str]]:
    """Run it; yield what was typed, with what was then shown."""
    with internet() as both:
        user = User(both.host)
        with machine(user):
            with Terminal(user, "sh", "-c", real("\n".join(LAUNCH))) as vm:
                vm.wait_shown("@@ ready")
                meanwhile = [(command, shown(user, command)) for command in MEANWHILE]
                vm.type("\n")
                vm.child.wait()
                vm.hang_up()
            lines = [line for line in screen(vm).splitlines() if not line.startswith("@@ ")]
            text = "\n".join(filter(str.strip, lines))
            until_then, off, after = text.partition("/ # poweroff")
            yield "\n".join(LAUNCH), until_then
            yield "# meanwhile, in another terminal", ""
            yield from meanwhile
            yield "# in the guest", f"{off}{after}"
            yield "# afterwards", ""
            for command in AFTERWARDS:
                yield command, shown(user, command)
        netwrap(user, "wait", check=True)


def draw(session: list[tuple[str, str]], theme: TerminalTheme) -> str:
    """Return the picture of a session."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for typed, then in session:
        if typed.startswith("#"):
            console.print(Text(f"\n{typed}", "dim"))
        else:
            console.print(Text.assemble(("$ ", "bold green"), (typed, "bold")))
        if then.strip():
            console.print(Text(then.strip("\n")))
    # Without the fonts that rich would have a reader's browser fetch.
    frame = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="alice", theme=theme, code_format=frame, unique_id="session")


def main() -> None:
    """Write both pictures."""
    found = list(session())
    for name, theme in THEMES.items():
        (DOCS / f"session-{name}.svg").write_text(draw(found, theme), "utf-8")


if __name__ == "__main__":
    main()
