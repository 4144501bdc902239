"""Words of ours in a command line with which QEMU only prints: it knows none of them."""

from __future__ import annotations

from qemu_netwrap.qemu import netdev_options
from qemu_netwrap.qemu.command_line import PRINTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu.command_line import CommandLine

_KEPT = ("id", "model")


def in_qemus_words(line: CommandLine) -> dict[int, str]:
    """Return, by their index, the arguments of network options of ours as QEMU can read them.

    They name a user network, of which nothing is made, with the model whose list is asked for. None
    beside an option with which QEMU ends before it looks at them (-version, -help: system/vl.c).
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
