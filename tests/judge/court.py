"""Runs in a simulated machine: starts QEMUs, and says what each made of its words.

A request is a line of JSON on standard input: `words`, the program first; `taps`, a map from
placeholders in the words to [name, multi_queue, vnet_hdr], each of which becomes the number of a
descriptor of a new tap of that name; `files`, a map from placeholders to texts, each of which
becomes the path of a file with that text. The answer is a line of JSON: QEMU's `status`, what it
wrote on `stderr`, and `network`: the monitor's `info network`, null if QEMU never came so far.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x2, 0x1000, 0x100, 0x4000
QMP = "".join(
    json.dumps(command)
    for command in (
        {"execute": "qmp_capabilities"},
        {
            "execute": "human-monitor-command",
            "arguments": {"command-line": "info network"},
            "id": "network",
        },
        {"execute": "quit"},
    )
)


def tap(name: str, many: bool, vnet_hdr: bool) -> int:
    """Open a queue of a tap, which goes with its last descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE * many | IFF_VNET_HDR * vnet_hdr
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    return fd


def memory(text: str) -> int:
    """Open a new file with a text."""
    fd = os.memfd_create("text")
    os.write(fd, text.encode())
    return fd


def hear(
    words: list[str], taps: dict[str, tuple[str, bool, bool]], files: dict[str, str]
) -> dict[str, object]:
    """Start QEMU and ask it."""
    fds = {placeholder: tap(*made) for placeholder, made in taps.items()}
    texts = dict(files)
    for placeholder, fd in fds.items():
        words = [word.replace(placeholder, str(fd)) for word in words]
        texts = {name: text.replace(placeholder, str(fd)) for name, text in texts.items()}
    for placeholder, text in texts.items():
        fds[placeholder] = memory(text)
        path = f"/proc/self/fd/{fds[placeholder]}"
        words = [word.replace(placeholder, path) for word in words]
    try:
        done = subprocess.run(
            words,
            input=QMP,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            errors="replace",
            pass_fds=tuple(fds.values()),
        )
    finally:
        for fd in fds.values():
            os.close(fd)
    network = None
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            network = answer["return"] if answer.get("id") == "network" else network
    return {"status": done.returncode, "stderr": done.stderr, "network": network}


if __name__ == "__main__":
    for request in sys.stdin:
        print(json.dumps(hear(**json.loads(request))), flush=True)  # noqa: T201 - the answer
