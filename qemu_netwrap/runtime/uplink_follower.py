"""What a network's lookout becomes when the host's way out may have changed, by way of sh(1).

It is run as a file, without site-packages, with the socket that woke it as its standard input.

    python3 -I -S uplink_follower.py NETWORK-FOLDER
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources.effects import Work

SHELL = "/bin/sh"
_SLEEP = 'head -c 1 >/dev/null && exec "$@"'
_LOOKS = 5


def sleeping(folder: str) -> list[str]:
    """Return the command line of the shell that sleeps until there is something to follow."""
    again = (sys.executable, "-I", "-S", __file__, folder)
    return ["sh", "-c", _SLEEP, "lookout", *again]


def ways(work: Work) -> tuple[int, int]:
    """Return the numbers of the devices of the default routes; 0 for none."""
    return work.rtnl.default_index(4), work.rtnl.default_index(6)


def main() -> None:
    """Have the network follow; sleep again if it is there still."""
    folder = sys.argv[1]
    sys.path.insert(0, __file__.rsplit("/", 3)[0])
    if follow(folder):
        os.execv(SHELL, sleeping(folder))


def follow(folder: str) -> bool:
    """Have the network of FOLDER follow the host's way out; return whether it is up."""
    import _socket  # noqa: PLC0415 - run as a file

    from qemu_netwrap.errors import NetwrapError  # noqa: PLC0415 - run as a file
    from qemu_netwrap.linux.netlink import route_watch  # noqa: PLC0415 - run as a file
    from qemu_netwrap.resources import effects  # noqa: PLC0415 - run as a file
    from qemu_netwrap.runtime import membership  # noqa: PLC0415 - run as a file
    from qemu_netwrap.state import State  # noqa: PLC0415 - run as a file

    base, _, bridge = folder.rpartition("/networks/")
    work = effects.Work(State(base))
    watched = _socket.socket(fileno=0)
    is_up = True
    for _ in range(_LOOKS):
        route_watch.drain(watched)
        seen = ways(work)
        route_watch.heed(watched, seen)
        try:
            is_up = membership.follow(bridge, work)
        except (NetwrapError, OSError):
            pass  # the next message, or the next run that joins, tries again; `ps` tells
        if ways(work) == seen:
            break
    watched.detach()
    return is_up


if __name__ == "__main__":
    main()
