"""The keeper while QEMU lives: a bare interpreter asleep on the run's lock.

The keeper becomes this by execve, so that nothing stays loaded that waiting does not need. It is
run as a file, without site-packages; what releasing needs is imported when QEMU is gone.

    python3 -I -S waiter.py RUN-FOLDER LOCK-FD
"""

import fcntl
import os
import sys


def main() -> None:
    """Sleep until the last process that holds the run's lock is gone, then release the run."""
    folder, lock = sys.argv[1], int(sys.argv[2])
    fcntl.flock(lock, fcntl.LOCK_EX)
    here = os.path.abspath(__file__)
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(here))))
    from qemu_netwrap.life.ending import finish

    finish(folder, lock)


if __name__ == "__main__":
    main()
