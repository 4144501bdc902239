"""Command lines that people find: typed after `qemu-netwrap --`, each does what its page promises.

The network words are those of the page; what would make QEMU boot, or need KVM, is left out.
"""

from __future__ import annotations

import os
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.hooked import IFDOWN, IFUP, has_state, links, wait_gone
from lab.netns import wait_for
from lab.tool import COMMAND, QEMU

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Uplinked

STILL = "-S -accel tcg -display none -serial none -monitor none -m 64 -daemonize -pidfile /run/pid"
USERS_TAP = """
ip tuntap add tap0 mode tap vnet_hdr
ip link set tap0 address 52:54:00:00:00:03 up
"""
BR0 = """
ip link add br0 type bridge
ip link set br0 address 52:54:00:00:00:07
ip link add port0 type veth peer name far0
ip link set port0 master br0 up
ip link set far0 up
ip link set br0 up
until ip link show br0 | grep -q 'state UP'; do sleep 0.01; done
"""
NO_IPV6 = "sysctl -qw net.ipv6.conf.default.disable_ipv6=1\n"
PVE = "/var/lib/qemu-server/pve-bridge"


@dataclass(frozen=True)
class Page:
    """What is typed, what was there before, and which tap is then on which bridge."""

    typed: str
    ports: dict[str, str]  # `*`: a tap whose name is ours to choose
    before: str = ""


PAGES = {
    "QEMU manual, -nic tap": Page(f"{QEMU} linux.img -nic tap", {"*": "qn-nat"}),
    "QEMU manual, -netdev bridge": Page(
        f"{QEMU} linux.img -netdev bridge,br=br1,id=n1 -device virtio-net,netdev=n1", {"*": "br1"}
    ),
    "QEMU manual, two taps": Page(
        f"{QEMU} linux.img -net nic -net tap,ifname=tap0 -net nic -net tap,ifname=tap1",
        {"tap0": "qn-nat", "tap1": "qn-nat"},
    ),
    "no scripts, the tap made before": Page(
        f"{QEMU} -net nic -net tap,ifname=tap0,script=no,downscript=no -hda linux.img",
        {"tap0": ""},
        USERS_TAP,
    ),
    "no scripts, no tap": Page(
        f"{QEMU} -net nic -net tap,ifname=tap0,script=no,downscript=no -hda linux.img",
        {"tap0": "qn-nat"},
    ),
    "Yocto, runqemu": Page(
        f"{QEMU} -device virtio-net-pci,netdev=net0,mac=52:54:00:12:34:02"
        " -netdev tap,id=net0,ifname=tap0,script=no,downscript=no",
        {"tap0": ""},
        USERS_TAP,
    ),
    "OpenWrt, two bridges": Page(
        f"{QEMU} -netdev bridge,br=br-lan,id=hn0 -device e1000,netdev=hn0,id=nic1"
        " -netdev bridge,br=br0,id=hn1 -device e1000,netdev=hn1,id=nic2",
        {"*": "br-lan", "**": "br0"},
        BR0,
    ),
    "syzkaller": Page(
        f"{QEMU} -net user,host=10.0.2.10,hostfwd=tcp:127.0.0.1:10021-:22 -net nic,model=e1000", {}
    ),
    "Proxmox": Page(
        "kvm -name vm100 -netdev type=tap,id=net0,ifname=tap100i0,"
        f"script={PVE},downscript={PVE}down -device virtio-net-pci,netdev=net0",
        {"tap100i0": "qn-nat"},
    ),
    "a course's scripts": Page(
        f"{QEMU} -netdev tap,id=mytap,ifname=tap0,script=./qemu-ifup,downscript=./qemu-ifdown"
        " -device e1000,netdev=mytap",
        {"tap0": "qn-nat"},
    ),
    "Arch, a bridge": Page(f"{QEMU} -nic bridge,br=br0,model=virtio-net-pci", {"*": "br0"}, BR0),
    "tunctl and ifname": Page(f"{QEMU} -net nic -net tap,ifname=tap0", {"tap0": ""}, USERS_TAP),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_as_typed(page: Page, uplinked: Uplinked, watch: Watch, tmp_path: Path) -> None:
    host = uplinked.host
    (tmp_path / "linux.img").write_bytes(bytes(1 << 16))
    (tmp_path / "kvm").symlink_to(f"/usr/bin/{QEMU}")
    for name, program in (("qemu-ifup", IFUP), ("qemu-ifdown", IFDOWN)):
        (tmp_path / name).write_text(f'#!/bin/sh\n{program} "$1"\n', "utf-8")
        (tmp_path / name).chmod(0o755)
    for path, program in ((PVE, IFUP), (f"{PVE}down", IFDOWN)):
        host.write(path, f'#!/bin/sh\nexec {program} "$1"\n', mode=0o755)
    host.run("sh", "-euc", NO_IPV6 + page.before)
    watch.baseline(host)
    before = links(host)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = (*shlex.split(page.typed), *STILL.split())
    host.run(COMMAND, "--", *words, cwd=tmp_path, env=env)
    pid = int(Path(f"/proc/{host.pid}/root/run/pid").read_text("utf-8"))
    there = links(host)
    expected = {name: on for name, on in page.ports.items() if "*" not in name}
    assert {name: there[name].get("master", "") for name in expected} == expected
    ours = [link for name, link in there.items() if name not in before and name.startswith("qn")]
    chosen = sorted(link["master"] for link in ours if "master" in link)
    assert chosen == sorted(on for name, on in page.ports.items() if "*" in name)
    assert has_state(host) == any(page.ports.values())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "QEMU's end")
    wait_gone(host)
    host.run("rm", "-f", "/run/pid")


MACVTAP = """
ip link add link eth0 name macvtap0 type macvtap mode bridge
ip link set macvtap0 up
dev=$(cat /sys/class/net/macvtap0/macvtap/tap*/dev)
mknod /run/tapN c "${dev%:*}" "${dev#*:}"
"""
BY_NUMBER = (
    f"exec {COMMAND} -- {QEMU} {STILL} -net nic,macaddr=$(cat /sys/class/net/macvtap0/address)"
    " -net tap,fd=3 3<>/run/tapN"
)


def test_a_macvtap_by_descriptor(uplinked: Uplinked, watch: Watch) -> None:
    """As the macvtap pages have it, `fd=3 3<>/dev/tapN`: QEMU's alone, not a word is changed."""
    host = uplinked.host
    host.run("sh", "-euc", NO_IPV6 + MACVTAP)
    watch.baseline(host)
    host.run("sh", "-euc", BY_NUMBER)
    pid = int(Path(f"/proc/{host.pid}/root/run/pid").read_text("utf-8"))
    words = Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0")[:-1]
    assert words[-2:] == ["-net", "tap,fd=3"]
    assert not has_state(host)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "QEMU's end")
    host.run("rm", "-f", "/run/pid")
