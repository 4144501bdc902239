"""The options before QEMU's command line, and that command line."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.network import Config

# The environment variable that names the network of taps without one, unless --network does.
NETWORK = "QEMU_NETWRAP_NETWORK"
# What sudo(8) tells in the environment of the user who called it.
SUDOS = ("SUDO_UID", "SUDO_USER")


class LaunchOptions(Record):
    """A launch: qemu-netwrap's options, and QEMU's command line with the program first."""

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
    keep_env: str = ""  # names of environment variables, separated by commas
    loaded: Config | None = None  # the configuration, if it has been read already
