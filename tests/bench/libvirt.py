"""libvirt, without a system around it: its daemon alone on a simulated machine."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Final

from lab.netns import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

_VIRSH: Final = ("virsh", "-c", "qemu:///system")
_NET: Final = """
<network><name>bench</name><bridge name='virbr9'/><forward mode='nat'/>
  <ip address='10.77.0.1' netmask='255.255.255.0'>
    <dhcp><range start='10.77.0.2' end='10.77.0.254'/></dhcp></ip></network>
"""
_DOMAIN: Final = """
<domain type='qemu'><name>bench</name><memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='network'><source network='bench'/></interface></devices></domain>
"""
_QEMU_CONF: Final = """
security_driver = "none"
user = "root"
group = "root"
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
# Those that libvirt-daemon-system makes.
_ACCOUNTS: Final = {
    "passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin",
    "group": "libvirt-qemu:x:64055:\nkvm:x:64056:",
}
# The lab's /sys hides where control groups are mounted, which /proc/mounts tells of still.
_DAEMON: Final = """
umount /sys; umount -R -l /sys/fs/cgroup; mount -t sysfs sysfs /sys
exec libvirtd
"""


@contextlib.contextmanager
def libvirt(host: Host) -> Iterator[None]:
    """Have libvirtd running on HOST. AssertionError if it does not come up."""
    for folder in ("lib", "log", "cache"):
        host.write(f"/var/{folder}/libvirt/qemu/.bench", "")
    for file, line in _ACCOUNTS.items():
        host.write(f"/etc/{file}", f"{host.read(f'/etc/{file}')}{line}\n")
    host.write("/etc/libvirt/qemu.conf", _QEMU_CONF)
    host.write("/run/net.xml", _NET)
    host.write("/run/domain.xml", _DOMAIN)
    null = subprocess.DEVNULL
    daemon = host.popen("unshare", "-m", "sh", "-c", _DAEMON, stdout=null, stderr=null)
    try:
        wait_for(lambda: host.run(*_VIRSH, "version", check=False).returncode == 0, "libvirtd", 30)
        host.run(*_VIRSH, "net-define", "/run/net.xml")
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def virsh(host: Host, *words: str) -> float:
    """Run a virsh command; return the milliseconds it took."""
    begun = time.monotonic_ns()
    host.run(*_VIRSH, *words)
    return (time.monotonic_ns() - begun) / 1e6


def measure(host: Host, rounds: int) -> dict[str, list[float]]:
    """Start and end a network and a machine some times; return the milliseconds of each command."""
    commands = {
        "`virsh net-start`": ("net-start", "bench"),
        "`virsh create`, network up": ("create", "/run/domain.xml"),
        "`virsh destroy`": ("destroy", "bench"),
        "`virsh net-destroy`": ("net-destroy", "bench"),
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, words in commands.items():
            found[name].append(virsh(host, *words))
    return found
