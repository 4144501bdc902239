"""Taps as the user wants them, and what is left to the user and to QEMU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guest.shell import Shell, link

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host

USERS_TAP = """
sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip tuntap add mine0 mode tap vnet_hdr
ip address add 192.0.2.1/24 dev mine0
ip link set mine0 up
"""
ORDINARY_USER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def test_queues_and_name(host: Host) -> None:
    """Two queues from end to end, on a tap of the name that was asked for."""
    netdev = ("-netdev", "tap,id=n0,ifname=web0,queues=2,script=no,downscript=no")
    device = ("-device", "virtio-net-pci,netdev=n0,mq=on,vectors=6")
    with Shell(host, *netdev, *device, extra=("-smp", "2")) as guest:
        assert guest.lease.gateway != "-"
        queues = guest.ask("ls /sys/class/net/eth0/queues").split()
        assert queues == ["rx-0", "rx-1", "tx-0", "tx-1"]
        tap = link(host, "web0")
        assert tap["master"] == "qn-nat"
        assert tap["linkinfo"]["info_data"]["multi_queue"]
        assert tap["linkinfo"]["info_data"]["numqueues"] == 2
        assert guest.reached(guest.lease.gateway) == {guest.lease.gateway}


def test_tap_of_the_user(host: Host, watch: Watch) -> None:
    """Every byte reaches QEMU as it was typed, and the tap stays."""
    host.run("sh", "-euc", USERS_TAP)
    watch.baseline(host)
    tap = ("-nic", "tap,ifname=mine0,script=no,downscript=no,model=virtio")
    with Shell(host, *tap, address="192.0.2.2/24") as guest:
        assert guest.reached("192.0.2.1") == {"192.0.2.1"}
        assert_untouched(host, guest)


def test_ordinary_user_on_slirp(host: Host) -> None:
    """QEMU's own user network needs no privilege."""
    words = ("-nic", "user,model=virtio")
    with Shell(host, *words, before=ORDINARY_USER, for_all=True) as guest:
        assert (guest.lease.address, guest.lease.gateway) == ("10.0.2.15", "10.0.2.2")
        assert guest.reached("10.0.2.2") == {"10.0.2.2"}
        assert "Uid:\t65534\t65534\t65534\t65534\n" in host.read(f"/proc/{guest.pid}/status")
        assert_untouched(host, guest)


def assert_untouched(host: Host, guest: Shell) -> None:
    """See that QEMU is as if it had been started without the tool."""
    words = Path(f"/proc/{guest.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    assert [word.decode() for word in words] == guest.typed
    assert list(host.processes()) == [guest.pid]
    assert host.run("test", "-e", "/run/qemu-netwrap", check=False).returncode == 1
    assert guest.stderr == ""
