"""What the keeper becomes when QEMU is gone; until then it sleeps as flock(1) on the run's lock.

Without flock(1) the waiter itself sleeps: a bare interpreter that loads nothing that waiting does
not need, not even `os`, a tenth of its memory. It is run as a file, without site-packages; what
releasing needs is imported when QEMU is gone.

    python3 -I -S waiter.py RUN-FOLDER LOCK-FD format=2 SEARCH-PATH...

Keepers of older versions pass no format, and the oldest no search path either.
"""

import fcntl
import sys

FORMATS = ("format=2",)  # of the arguments: see runtime.kept_code


def main() -> None:
    """Sleep until the last process that holds the run's lock is gone, then release the run."""
    folder, lock = sys.argv[1], int(sys.argv[2])
    places = sys.argv[3:] or [__file__.rsplit("/", 3)[0]]
    if places[0].startswith("format=") and places.pop(0) not in FORMATS:
        sys.exit(f"{folder}: the keeper was of another version: run qemu-netwrap gc")
    fcntl.flock(lock, fcntl.LOCK_EX)
    sys.dont_write_bytecode = True  # the places may be in a user's home
    sys.path[:0] = places
    from qemu_netwrap.runtime.teardown import finish  # noqa: PLC0415 - run as a file

    finish(folder, lock)


if __name__ == "__main__":
    main()
