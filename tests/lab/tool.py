"""The installed command, and bare QEMU beside it, on a simulated machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import subprocess

    from lab.netns import Host

QEMU: Final = "qemu-system-x86_64"
COMMAND: Final = str(Path(sys.executable).with_name("qemu-netwrap"))
# A QEMU that needs no KVM, no guest and no terminal, and lives until it is killed.
IDLE: Final = ("-accel", "tcg", "-M", "none", "-display", "none", "-monitor", "none", "-S")


def netwrap(
    host: Host, *args: str, check: bool = False, **kw: Any
) -> subprocess.CompletedProcess[str]:
    """Run `qemu-netwrap ARGS` on `host` to its end; keywords are those of Host.run."""
    return host.run(COMMAND, *args, check=check, **kw)
