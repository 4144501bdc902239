"""The demonstration: one real guest through the tool, and what of it is to be seen on the host.

Nothing on this machine changes: the host is a simulated one, with a small internet behind it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab.guest import QEMU, Guest
from lab.leaks import snapshot, wait_same
from lab.netns import WEB_BODY, WEB_NAME, internet
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked

WORDS: Final = ("-name", "web", "-nic", "nat,model=virtio")
TABLE: Final = ("nft", "list", "table", "inet", "qemu_netwrap")
# What somebody would type inside the guest, each with a prompt before it.
JOB: Final = f"""
show() {{ echo; echo "/ # $*"; "$@" 2>&1; }}
show dhcp eth0
show ip route
show cat /etc/resolv.conf
show nslookup -type=a {WEB_NAME}
show wget -qO- http://{WEB_NAME}/
report page "$(wget -qO- http://{WEB_NAME}/)"
await_go
"""
WIDTH: Final = 110
ROWS: Final = 60


def title(text: str) -> None:
    """Begin a section."""
    print(f"\n=== {text} ".ljust(78, "="), flush=True)


def tell(text: str, prompt: str = "") -> None:
    """Print lines, indented and in a bearable amount, after the command that they come from."""
    lines = text.rstrip("\n").splitlines()
    shown = lines[:ROWS] + [f"... and {len(lines) - ROWS} lines more"] * (len(lines) > ROWS)
    if prompt:
        print(f"  {prompt}")
    for line in shown:
        cut = line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ..."
        print(f"  {cut}".rstrip())
    print(flush=True)


def command(host: Host, *words: str) -> str:
    """Run a command on the host as somebody would type it there; return what it printed."""
    real = (COMMAND, *words[1:]) if words[0] == "qemu-netwrap" else words
    output = host.run(*real).stdout
    tell(output or "(nothing)", f"host # {shlex.join(words)}")
    return output


def demonstrate(both: Uplinked) -> list[str]:
    """Show one run from before to after; return what went wrong or was left."""
    host = both.host
    before = snapshot(host)
    title("The host, before")
    links = command(host, "ip", "-br", "link")
    command(host, "nft", "list", "ruleset")

    title("What would be done, and undone")
    command(host, "qemu-netwrap", "plan", "--", QEMU, *WORDS)

    title("A guest, through the tool")
    print(f"  host # qemu-netwrap -- {QEMU} {shlex.join(WORDS)} ...\n")
    print(
        "  ... being its kernel, a busybox to boot into, and -accel tcg. Its console:", flush=True
    )
    with Guest(host, (COMMAND, "--"), WORDS, JOB) as guest:
        page = guest.wait_report("page")
        guest.wait_report("waiting")
        transcript = [line for line in guest.console.splitlines() if not line.startswith("@@ ")]
        tell("\n".join(transcript))

        title("Meanwhile on the host")
        command(host, "qemu-netwrap", "ps")
        command(host, "ip", "-br", "link")
        command(host, *TABLE)

        title("The guest switches itself off")
        guest.send()
        ended = guest.wait()
        tell(f"QEMU's exit status, which is the command's own: {ended}")
    command(host, "qemu-netwrap", "wait")
    after = command(host, "ip", "-br", "link")
    rules = command(host, "nft", "list", "ruleset")
    wrong = [] if page == WEB_BODY.strip() else [f"the guest did not get the page, but {page!r}"]
    wrong += [f"QEMU ended with {ended}"] if ended else []
    wrong += [f"a rule is left: {line}" for line in rules.splitlines()]
    wrong += [] if after == links else ["the links are not what they were"]
    try:
        wait_same(host, before)
    except AssertionError as error:
        wrong.append(str(error))
    return wrong


def main() -> int:
    """Run the demonstration; return its exit status."""
    if os.geteuid() != 0:
        print("demo: root is needed to make namespaces: sudo make demo", file=sys.stderr)
        return 1
    with internet() as both:
        tell(netwrap(both.host, "--version").stdout)
        wrong = demonstrate(both)
    title("Afterwards")
    for line in wrong:
        print(f"  {line}")
    left = (
        "  Nothing is left: links, addresses, routes, rules, sysctls, files, processes as before."
    )
    print("  The demonstration FAILED: see above." if wrong else left)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
