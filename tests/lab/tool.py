"""The installed command, and bare QEMU beside it, on a simulated machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.netns import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host
    from lab.user import User

QEMU: Final = "qemu-system-x86_64"
COMMAND: Final = str(Path(sys.executable).with_name("qemu-netwrap"))
_WAITS: Final = (
    "qemu-netwrap: waiting for ",
    "qemu-netwrap: the keeper has said nothing for ",
)
# A QEMU that needs no KVM, no guest and no terminal, and lives until it is killed.
IDLE: Final = ("-accel", "tcg", "-M", "none", "-display", "none", "-monitor", "none", "-S")


def netwrap(
    host: Host | User, *args: str, check: bool = False, **kw: Any
) -> subprocess.CompletedProcess[str]:
    """Run `qemu-netwrap ARGS` on `host`, as its root or a user; keywords are those of Host.run."""
    return host.run(COMMAND, *args, check=check, **kw)


def unhurried(stderr: str) -> str:
    """Return what a command has said but for its waits, of which it tells on a slow machine."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(_WAITS))


def wait_lookout(host: Host) -> None:
    """Wait until what follows the way out of a nat network sleeps, by its last process."""
    wait_for(lambda: any(cmd.startswith("head ") for cmd in host.processes().values()), "head(1)")


@contextlib.contextmanager
def running(host: Host) -> Iterator[str]:
    """Yield the tap of an idle QEMU on nat, when it is up; afterwards all of it is gone."""
    null = subprocess.DEVNULL
    qemu = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-netdev", "nat,id=n0", stderr=null)
    try:
        tap = f"qn{qemu.pid}-0"
        up = ("ip", "link", "show", "up", "dev", tap)
        wait_for(lambda: tap in host.run(*up, check=False).stdout, "the tap")
        yield tap
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(host, "wait", check=True)
