"""What QEMU inherits is the least that it needs: a QEMU that was taken over gains nothing by it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.running import FIRST_FD, keeper_of
from lab.netns import wait_for
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

PYTHON: Final = os.path.realpath(sys.executable)  # which all users can run
# Tries with each descriptor what would harm others, and prints what it could do.
PROGRAM: Final = """
import ctypes, fcntl, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def grows(fd):
    return os.pwrite(fd, bytes(1 << 16), 1 << 20)
def is_cut(fd):
    os.ftruncate(fd, 1 << 20)
def is_written_anew(fd):
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
    grows(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
def has_mode_changed(fd):
    os.fchmod(fd, 0o777)
def is_executed(fd):
    if os.fork() == 0:
        try:
            os.execv(f"/proc/self/fd/{fd}", ["x"])
        except PermissionError:
            os._exit(1)
        except OSError:
            pass
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait()[1]):
        raise PermissionError
def has_space_taken(fd):
    if libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(1 << 20)):
        raise OSError
def hears_again(fd):
    with socket.socket(fileno=os.dup(fd)) as held:
        held.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
tries = grows, is_cut, is_written_anew, has_mode_changed, is_executed, has_space_taken
for fd in map(int, sorted(os.listdir("/proc/self/fd"))):
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        continue
    if fd < 64 or path == "/dev/net/tun":
        continue
    for each in (hears_again,) if path.startswith("socket") else tries:
        try:
            each(fd)
        except OSError:
            continue
        print(f"{path} {each.__name__}")
print("up", flush=True)
signal.pause()
"""
CONFIG: Final = '[nic]\n  type = "nat"\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a folder that all users can get to, with the program in it."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        Path(path, "vm.py").write_text(PROGRAM, "utf-8")
        yield Path(path)


def begun(host: Host, place: Path, *words: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start a QEMU that has been taken over, as nobody; return it and what it could do."""
    child = host.popen(
        *(COMMAND, "-q", "--run-as", "nobody", "--", PYTHON, str(place / "vm.py"), *words),
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    done = list(iter(child.stdout.readline, "up\n"))
    keeper_of(host, child.pid)
    return child, done


def ended(host: Host, child: subprocess.Popen[str]) -> None:
    """End it, and all of its network."""
    child.kill()
    child.wait(30)
    netwrap(host, "wait", check=True)


def inherited(pid: int) -> dict[str, set[int]]:
    """Return what a QEMU has from us, and how each is open: O_RDONLY is 0."""
    found: dict[str, set[int]] = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        if int(each.name) >= FIRST_FD:
            info = Path(f"/proc/{pid}/fdinfo/{each.name}").read_text("ascii")
            flags = int(info.partition("flags:")[2].split()[0], 8)
            name = each.readlink().name.partition(":")[0]
            found.setdefault(name, set()).add(flags & os.O_ACCMODE)
    return found


def test_nothing_inherited_can_be_used_against_others(host: Host, place: Path) -> None:
    config = place / "net.cfg"
    config.write_text(CONFIG, "utf-8")
    config.chmod(0o644)
    words = ("-readconfig", str(config), "-nic", "nat,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53")
    child, done = begun(host, place, *words)
    assert done == []
    assert inherited(child.pid) == {
        "lock": {os.O_RDONLY},
        "memfd": {os.O_RDONLY},
        "tun": {os.O_RDWR},
        "socket": {os.O_RDWR},
    }
    ended(host, child)


def port(host: Host) -> list[str]:
    """Return what the kernel tells of the port 5353."""
    (row,) = (line.split() for line in host.proc_net("udp").splitlines() if ":14E9 " in line)
    return row


def test_who_comes_to_a_port_that_leads_to_a_guest_is_not_qemus(host: Host, place: Path) -> None:
    """Also where the rules that lead there have been taken away."""
    child, _ = begun(host, place, "-nic", "nat,hostfwd=udp:127.0.0.1:5353-:53")
    host.run("nft", "flush", "ruleset")
    send = "import socket; socket.socket(type=2).sendto(b'x', ('127.0.0.1', 5353))"
    host.run(sys.executable, "-c", send)
    wait_for(lambda: int(port(host)[12]) == 1, "it to be dropped")
    assert port(host)[4] == "00000000:00000000"  # what is queued
    ended(host, child)
