"""Calls a bridge helper as QEMU does, and says what came of it.

calls_helper.py HELPER WORD...: with @FD in a word for the socket. Prints the tap's name, `refused`
when the helper failed, or `nothing` when it succeeded and sent no descriptor.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import sys

TUNGETIFF = 0x800454D2


def main() -> None:
    """Call, receive, and look at the tap."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    words = [word.replace("@FD", str(its.fileno())) for word in sys.argv[1:]]
    status = subprocess.call(words, pass_fds=(its.fileno(),))
    its.close()
    if status:
        sys.stdout.write("refused\n")
        return
    _, fds, _, _ = socket.recv_fds(ours, 1, 4)
    if not fds:
        sys.stdout.write("nothing\n")
        return
    name, flags = struct.unpack("16sH22x", fcntl.ioctl(fds[0], TUNGETIFF, bytes(40)))
    sys.stdout.write(f"{name.rstrip(bytes(1)).decode()} {flags:x} {len(fds)}\n")
    sys.stdout.flush()
    sys.stdin.read()  # hold the tap until we are told


if __name__ == "__main__":
    main()
