"""The waiter of a run whose QEMU another program started: it sleeps until that QEMU's tap is gone.

It differs from `waiter` in what it sleeps on: such a QEMU holds no run lock. A socket filter in the
kernel passes the events of this one tap alone: usually none until the tap is removed.

    python3 -I -S tap_waiter.py RUN-FOLDER LOCK-FD NETLINK-FD format=2 SEARCH-PATH...
"""

import errno
import fcntl
import os
import sys

FORMATS = ("format=2",)  # of the arguments: see runtime.kept_code
_MESSAGE = 1 << 16


def main() -> None:
    """Sleep until the run's tap is gone, or no longer held; then release the run."""
    folder, lock, netlink = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # As in `waiter`.
    places = sys.argv[4:] or [__file__.rsplit("/", 3)[0]]
    if places[0].startswith("format=") and places.pop(0) not in FORMATS:
        sys.exit(f"{folder}: the keeper was of another version: run qemu-netwrap gc")
    sys.dont_write_bytecode = True
    sys.path[:0] = places
    while True:
        try:
            os.read(netlink, _MESSAGE)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # a message was lost: check the tap anyway
                raise
        from qemu_netwrap.state import StateDir  # noqa: PLC0415 - run as a file

        state, run = StateDir.of_folder(folder)
        if not state.tap_lives(run):
            break
    fcntl.flock(lock, fcntl.LOCK_EX)
    from qemu_netwrap.runtime.teardown import finish  # noqa: PLC0415 - run as a file

    finish(folder, lock)


if __name__ == "__main__":
    main()
