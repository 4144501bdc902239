"""A stand-in for a QEMU that its guest has taken over: it tries what it can, and reports.

Asked for -help it notes as whom, in the file `asked` beside it. Run by itself it writes what came
of its attempts to the file that $REPORT names, as JSON. It is not imported: a test copies it to
where every user can run it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TYPING = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
X32 = 0x40000000
IOCTL, X32_IOCTL, KEYCTL = 16, 514, 250
SEARCH, READ, SESSION = 10, 11, -3
# push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; mov edx, r8d; int 0x80; pop rbx; ret
INT80 = bytes.fromhex("53 89f8 89f3 89d1 4489c2 cd80 5b c3")
IOCTL_32 = 54
MAP_32BIT = 0x40

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(*args: Any) -> int:
    """Make a system call; return its negative errno, or what it returns."""
    done = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    return int(done) if done >= 0 else -ctypes.get_errno()


def by_ioctl(fd: int, request: int) -> int:
    """Type in the way that a program takes."""
    try:
        fcntl.ioctl(fd, request, b"X")
    except OSError as error:
        return -(error.errno or 0)
    return 0


def by_int80(fd: int, request: int) -> int:
    """Type by the 32-bit system call, which a 64-bit process can make as well."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT
    room = mmap.mmap(-1, 4096, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    room.write(INT80)
    room[2048:2049] = b"X"
    at = ctypes.addressof(ctypes.c_char.from_buffer(room))
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_long] * 5)(at)
    return int(function(IOCTL_32, fd, request, 0, at + 2048))


def type_something() -> dict[str, int]:
    """Type into the terminal in every way."""
    fd = os.open("/dev/tty", os.O_RDWR)
    found: dict[str, int] = {}
    for name, request in TYPING.items():
        typed = ctypes.c_char_p(b"X")
        found |= {
            f"{name} ioctl": by_ioctl(fd, request),
            f"{name} upper bits": call(IOCTL, fd, request | 1 << 32, typed),
            f"{name} x32": call(X32 | X32_IOCTL, fd, request, typed),
            f"{name} x32, the other number": call(X32 | IOCTL, fd, request, typed),
            f"{name} int 0x80": by_int80(fd, request),
        }
    return found


def read_keyring() -> str:
    """Read root's secret from the session keyring."""
    found = call(KEYCTL, SEARCH, SESSION, b"user", b"netwrap-secret", 0)
    room = ctypes.create_string_buffer(64)
    return room.value.decode() if found > 0 and call(KEYCTL, READ, found, room, 64) > 0 else ""


def rise() -> str:
    """Return the user that a setuid program makes of this one."""
    words = [os.environ["SETUID"], "-c", "import os; print(os.geteuid())"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def status() -> dict[str, str]:
    """Return what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def be_asked(beside: Path) -> None:
    """Note who asks for -help; answer, or behave as the file `manner` says."""
    with (beside / "asked").open("a", encoding="utf-8") as file:
        seen = {"tty": os.isatty(0) or os.isatty(1) or os.isatty(2), "environ": dict(os.environ)}
        file.write(json.dumps(status() | seen) + "\n")
    manner = beside / "manner"
    how = manner.read_text("utf-8") if manner.exists() else ""
    if how == "hangs":
        time.sleep(3600)
    while how == "prints without end":
        sys.stdout.write("y" * 65536)
    sys.stdout.write("-h or -help     display this help and exit\n")


def main() -> None:
    """Be asked, or try everything."""
    if "-help" in sys.argv:
        be_asked(Path(os.path.realpath(__file__)).parent)
        return
    report: dict[str, Any] = {"environ": dict(os.environ), "status": status()}
    report |= {"keyring": read_keyring(), "setuid": rise(), "groups": os.getgroups()}
    if os.isatty(0):
        report["typed"] = type_something()
    Path(os.environ["REPORT"]).write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    main()
