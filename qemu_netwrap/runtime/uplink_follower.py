"""What the lookout of a network, sh(1), becomes when the host's way out may have changed.

It is run as a file, without site-packages, with the socket that woke it as its standard input.

    python3 -I -S uplink_follower.py NETWORK-FOLDER
"""

from __future__ import annotations

import os
import sys

_LOOKS = 5


def main() -> None:
    """Make the network follow; sleep again if the network is still up."""
    folder = sys.argv[1]
    sys.dont_write_bytecode = True  # the package may be in a user's home
    sys.path.insert(0, __file__.rsplit("/", 3)[0])
    if follow(folder):
        from qemu_netwrap.resources import lookout  # noqa: PLC0415 - run as a file

        os.execv(lookout.SHELL, lookout.sleeping(folder))


def follow(folder: str) -> bool:
    """Make the network of FOLDER follow the host's way out; return whether it is up."""
    import _socket  # noqa: PLC0415 - run as a file

    from qemu_netwrap.errors import NetwrapError  # noqa: PLC0415 - run as a file
    from qemu_netwrap.linux.netlink import watch  # noqa: PLC0415 - run as a file
    from qemu_netwrap.resources import lookout  # noqa: PLC0415 - run as a file
    from qemu_netwrap.resources.base import Context  # noqa: PLC0415 - run as a file
    from qemu_netwrap.runtime import membership  # noqa: PLC0415 - run as a file
    from qemu_netwrap.state import StateDir  # noqa: PLC0415 - run as a file

    base, _, bridge = folder.rpartition("/networks/")
    work = Context(StateDir(base))
    watched = _socket.socket(fileno=0)
    is_up = True
    for _ in range(_LOOKS):
        watch.drain(watched)
        seen = lookout.ways(work)
        watch.set_ways(watched, seen)
        try:
            is_up = membership.follow(bridge, work)
        except (NetwrapError, OSError):
            pass  # the next message, or the next run that joins, tries again; `ps` reports it
        if lookout.ways(work) == seen:
            break
    watched.detach()
    return is_up


if __name__ == "__main__":
    main()
