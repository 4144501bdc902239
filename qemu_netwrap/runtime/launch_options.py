"""What was typed before QEMU's words, and those."""

from __future__ import annotations

from qemu_netwrap.record import Record

# The network of taps that name none, where nobody types --network.
NETWORK = "QEMU_NETWRAP_NETWORK"


class LaunchOptions(Record):
    """A launch: our options, and QEMU's words with the program first."""

    words: tuple[str, ...]
    network: str = ""
    config: str = ""
    run_as: str = ""
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    yes_uplink: bool = False
    bind_group: bool = False
    force_uplink: bool = False
    keep_env: str = ""  # names of environment variables, with commas between
