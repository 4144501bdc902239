"""What guests boot from by the network, and what people bring from QEMU's `user` network."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

import pytest

from lab.netns import Host, link
from lab.tool import QEMU, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG: Final = """
[networks.lab]
mode = "host-only"
mac_filter = false
tftp = "/run/tftp"
bootfile = "boot/pxelinux.0"
"""
CLOSED: Final = (
    "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }"
)
ASK: Final = """
ip link set lo up
busybox udhcpc -i eth0 -f -n -q -t 20 -T 1 -O bootfile -s /run/told >/dev/null 2>&1
cat /run/lease
"""
TOLD: Final = """#!/bin/sh
if [ "$1" = bound ]; then
    ip address add "$ip/$mask" dev eth0
    echo "$boot_file$bootfile $siaddr" >/run/lease
fi
"""


@contextlib.contextmanager
def guest_of(host: Host) -> Iterator[tuple[Host, str]]:
    """Yield a machine on the network, and the gateway's address."""
    netwrap(host, "network", "up", "lab", check=True)
    (network,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    with Host("guest") as guest:
        link(host, "port0", guest, "eth0")
        host.run("ip", "link", "set", "port0", "master", "qn-lab")
        guest.write("/run/told", TOLD, mode=0o755)
        yield guest, network["address"].partition("/")[0]
        host.run("ip", "link", "del", "port0")
    netwrap(host, "network", "down", "lab", check=True)


def got(guest: Host, server: str, name: str) -> str:
    """Return what is got by TFTP; empty if it is not given."""
    words = ("busybox", "tftp", "-g", "-r", name, "-l", "/run/got", server)
    done = guest.run(*words, check=False, timeout=120)
    return guest.read("/run/got") if done.returncode == 0 else ""


@pytest.mark.parametrize("firewall", [False, True], ids=["open", "closed"])
def test_a_guest_boots_by_the_network(host: Host, *, firewall: bool) -> None:
    """Behind a firewall of the host's too."""
    host.write("/etc/qemu-netwrap/config.toml", CONFIG)
    kernel = "kernel\n" * 1000
    host.write("/run/tftp/boot/pxelinux.0", kernel, mode=0o644)
    host.write("/run/tftp/secret", "secret", mode=0o600)
    host.run("chmod", "755", "/run/tftp", "/run/tftp/boot")
    if firewall:
        host.run("nft", CLOSED)
    with guest_of(host) as (guest, server):
        assert guest.sh(ASK).split() == ["boot/pxelinux.0", server]
        assert got(guest, server, "boot/pxelinux.0") == kernel
        assert got(guest, server, "secret") == ""
        assert got(guest, server, "../../etc/hostname") == ""
        assert got(guest, server, "/etc/passwd") == ""
    if firewall:
        host.run("nft", "delete table inet f")


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("net=10.0.2.0/24", "subnet = "),
        ("dns=10.0.2.3", "dns = ["),
        ("tftp=/srv/tftp", "tftp = "),
        ("bootfile=pxelinux.0", "bootfile = "),
        ("hostname=web", "-name"),
        ("restrict=on", "host-only"),
        ("guestfwd=tcp:10.0.2.100:80-cmd:x", "host_services"),
        ("ipv6=off", "ipv6 = false"),
        ("ipv6-net=fd00::/64", "subnet6 = "),
        ("smb=/srv", "host_services"),
        ("domainname=x", "NETWORK.internal"),
    ],
)
def test_keys_of_user_are_told_with_ours(host: Host, key: str, ours: str) -> None:
    for net in (f"nat,{key}", f"tap,network=nat,{key}"):
        done = netwrap(host, "--", QEMU, "-nic", net)
        assert done.returncode == 125
        said, hint = done.stderr.splitlines()
        assert f"Invalid parameter '{key.partition('=')[0]}'" in said
        assert ours in hint
