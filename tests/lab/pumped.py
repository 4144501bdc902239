"""A simulated machine as the guest of a stand-in QEMU: its frames take the way of a guest's.

The stand-in hands frames to and fro between the tap that it is given and a tap in the machine, its
eth0. So what the machine's kernel and tools send goes through the real tap, bridge, rules and
dnsmasq, without a kernel to boot.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from lab.netns import wait_for
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.netns import Host

MAC: Final = "52:54:00:00:00:77"
_PROGRAM: Final = r"""#!@python@
import ctypes, fcntl, os, re, select, struct, sys
tap = int(re.search(r"\bfd=(\d+)", " ".join(sys.argv)).group(1))
ctypes.CDLL(None).setns(os.open(os.environ["GUEST"], os.O_RDONLY), 0)
nic = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(nic, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))
other = {tap: nic, nic: tap}
while True:
    for fd in select.select([tap, nic], [], [])[0]:
        try:
            os.write(other[fd], os.read(fd, 70000))
        except OSError:
            pass  # one of the two is not up yet
"""


@contextlib.contextmanager
def guest_of(
    host: Host, guest: Host, folder: Path, word: str, *options: str, up: bool = True
) -> Iterator[str]:
    """Have GUEST run on HOST by `-nic WORD`; yield its tap. Its eth0 is UP, without IPv4 address.

    The guest's MAC is `MAC`.
    """
    program = folder / "vm"
    program.write_text(_PROGRAM.replace("@python@", sys.executable), "utf-8")
    program.chmod(0o755)
    nic = f"{word},mac={MAC},vnet_hdr=off"
    qemu = host.popen(
        *(COMMAND, "-q", *options, "--", str(program), "-nic", nic),
        env={"GUEST": f"/proc/{guest.pid}/ns/net"},
        stderr=subprocess.PIPE,
    )
    try:
        has_nic = ("ip", "link", "show", "dev", "eth0")
        wait_for(
            lambda: qemu.poll() is not None or not guest.run(*has_nic, check=False).returncode,
            "the guest's NIC",
        )
        assert qemu.poll() is None, qemu.communicate()[1]
        state = "up" if up else "down"
        guest.run("ip", "link", "set", "eth0", "address", MAC, state)
        yield f"qn{qemu.pid}-0"
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(host, "wait", check=True)
