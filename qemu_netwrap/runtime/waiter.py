"""What the keeper becomes when QEMU is gone, by way of flock(1) asleep on the run's lock.

Without flock(1) it sleeps itself: a bare interpreter, in which nothing is loaded that waiting does
not need, not even `os`, a tenth of its memory. It is run as a file, without site-packages; what
releasing needs is imported when QEMU is gone.

    python3 -I -S waiter.py RUN-FOLDER LOCK-FD SEARCH-PATH...
"""

import fcntl
import sys


def main() -> None:
    """Sleep until the last process that holds the run's lock is gone, then release the run."""
    folder, lock = sys.argv[1], int(sys.argv[2])
    fcntl.flock(lock, fcntl.LOCK_EX)
    # An older version's keeper named no place: it is the one that this file is in.
    sys.path[:0] = sys.argv[3:] or [__file__.rsplit("/", 3)[0]]
    from qemu_netwrap.runtime.teardown import finish  # noqa: PLC0415 - run as a file

    finish(folder, lock)


if __name__ == "__main__":
    main()
