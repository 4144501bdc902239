"""A stand-in for QEMU: it holds the taps that a launch hands it, and does with them as it is told.

`StandIn` is the tests' side. Run as a program, this file is what takes QEMU's place: a line of
words comes in on standard input, one goes out on standard output.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.netns import wait_for
from lab.tool import COMMAND

if TYPE_CHECKING:
    from lab.netns import Host

SIOCSIFHWADDR, TUNGETIFF = 0x8924, 0x800454D2
IFF_VNET_HDR, ARPHRD_ETHER = 0x4000, 1
VNET_HDR = bytes(10)  # struct virtio_net_hdr: nothing left to do


class StandIn:
    """A run whose QEMU is played by this file."""

    def __init__(self, host: Host, *words: str, before: tuple[str, ...] = ()) -> None:
        """Start it with QEMU's WORDS; options of ours come BEFORE. It is up on return."""
        program = (sys.executable, __file__, *words)
        self.process = host.popen(
            *(COMMAND, *before, "--", *program),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        self.told = ""
        self.tap = f"qn{self.process.pid}-0"
        if self.ask("hello") != "hello":
            self.told = self.process.communicate()[1]
            message = f"the launch failed: {self.told}"
            raise AssertionError(message)

    @property
    def run(self) -> str:
        """The run's name."""
        return str(self.process.pid)

    def __enter__(self) -> Self:
        """Return the stand-in itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, as abruptly as a crash."""
        self.end()

    def end(self) -> str:
        """End it by SIGKILL; return what the launch has said. May be called again."""
        self.process.kill()
        if self.process.stderr is not None and not self.process.stderr.closed:
            self.told = self.process.communicate()[1]
        return self.told

    def send(self, *frames: bytes) -> None:
        """Have the guest send frames."""
        for frame in frames:
            assert self.ask("send", frame.hex()) == "sent"

    def set_mac(self, mac: str) -> None:
        """Give the tap itself another MAC, as a QEMU that was taken over can."""
        assert self.ask("mac", mac) == "set"

    def heard(self) -> list[bytes]:
        """Return the frames that have come for the guest since it was asked last."""
        return [bytes.fromhex(frame) for frame in self.ask("heard").split()]

    def wait_heard(self, wanted: bytes, what: str) -> None:
        """Wait until a frame has come for the guest that has WANTED in it."""
        wait_for(lambda: any(wanted in frame for frame in self.heard()), what)

    def ask(self, *words: str) -> str:
        """Have it do something; return its answer, without the newline."""
        to, back = self.process.stdin, self.process.stdout
        assert to is not None
        assert back is not None
        try:
            to.write(" ".join(words) + "\n")
            to.flush()
        except BrokenPipeError:
            return ""
        return back.readline().rstrip("\n")


class _Taps:
    """The taps of this process, which has QEMU's place."""

    def __init__(self, words: list[str]) -> None:
        fds = [fd for word in words for fd in re.findall(r"(?<![a-z])fd=(\d+)", word)]
        self.fds = list(map(int, fds))
        for fd in self.fds:
            os.set_blocking(fd, False)

    def do(self, verb: str, word: str) -> str:
        """Do as told, with the first tap; return the answer."""
        if verb == "send":
            os.write(self.fds[0], self._head(self.fds[0]) + bytes.fromhex(word))
            return "sent"
        if verb == "mac":
            address = struct.pack("=H6s", ARPHRD_ETHER, bytes.fromhex(word.replace(":", "")))
            try:
                fcntl.ioctl(self.fds[0], SIOCSIFHWADDR, bytes(16) + address + bytes(16))
            except PermissionError:
                return "refused"
            return "set"
        return " ".join(self._heard(self.fds[0])) if verb == "heard" else verb

    def _heard(self, fd: int) -> list[str]:
        """Return the frames that have come."""
        found: list[str] = []
        while True:
            try:
                raw = os.read(fd, 70000)
            except BlockingIOError:
                return found
            found.append(raw[len(self._head(fd)) :].hex())

    def _head(self, fd: int) -> bytes:
        """Return what comes before each frame."""
        flags = struct.unpack_from("=16sH", fcntl.ioctl(fd, TUNGETIFF, bytes(40)))[1]
        return VNET_HDR if flags & IFF_VNET_HDR else b""


if __name__ == "__main__":
    taps = _Taps(sys.argv)
    for line in sys.stdin:
        verb, _, word = line.strip().partition(" ")
        sys.stdout.write(f"{taps.do(verb, word)}\n")
        sys.stdout.flush()
