"""Extensions in a command line with which QEMU only prints: it does not know them."""

from __future__ import annotations

from qemu_netwrap.qemu import netdev_options
from qemu_netwrap.qemu.command_line import PRINTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu.command_line import CommandLine

_KEPT = ("id", "model")


def in_qemus_words(line: CommandLine) -> dict[int, str]:
    """Return {index: argument} that replaces extended network options by some that QEMU can read.

    They name a user network, which QEMU does not set up then, with the same id and model. Empty if
    QEMU exits before it reads them (-version, -help: system/vl.c).
    """
    found: dict[int, str] = {}
    if any(option.name in PRINTS for option in line.options):
        return found
    for option in line.named("netdev", "nic", "net"):
        net = netdev_options.parse(option)
        if net is not None and net.is_ours:
            kept = (f"{key}={net.value(key)}" for key in _KEPT if net.has(key))
            found[option.at] = ",".join(("user", *kept))
    return found
