"""What plain QEMU can do for an ordinary user, by its setuid bridge helper, is left to it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.hooked import has_state, links, ps, wait_gone
from lab.netns import wait_for
from lab.terminal import Terminal
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
HELPER = "/usr/lib/qemu/qemu-bridge-helper"
ACL = "/etc/qemu/bridge.conf"
TUN = "/dev/net/tun"
BRIDGE = ("-nic", "bridge,br=br0")


@pytest.fixture
def helped(host: Host) -> Iterator[Host]:
    """Make a machine where the helper is setuid and may use br0, which is there."""
    host.write(ACL, "allow br0\n", mode=0o644)
    host.sh(
        f"ip link add br0 type bridge; ip link set br0 up; cp {HELPER} /run/helper;"
        f" chmod 4755 /run/helper; mount --bind /run/helper {HELPER};"
        f" mknod -m 666 /run/tun c 10 200; mount --bind /run/tun {TUN}"
    )
    yield host
    host.sh(f"umount {HELPER} {TUN}; rm /run/helper /run/tun; ip link del br0")


def started(host: Host, *words: str) -> subprocess.Popen[str]:
    """Start something that becomes QEMU; return when it has a tap on br0, or has ended."""
    child = host.popen(*words, stderr=subprocess.PIPE)
    wait_tap(host, child)
    return child


def wait_tap(host: Host, child: subprocess.Popen[str]) -> None:
    """Wait until there is a tap on br0, or CHILD has ended."""
    ports = ("ls", "/sys/class/net/br0/brif")
    wait_for(lambda: bool(host.run(*ports).stdout) or child.poll() is not None, "a tap on br0")


@pytest.mark.parametrize("words", [BRIDGE, ("-netdev", "bridge,id=n0"), ("-net", "bridge,br=br0")])
def test_it_works_as_with_plain_qemu(helped: Host, words: tuple[str, ...]) -> None:
    for before in ((), (COMMAND, "--")):
        child = started(helped, *NOBODY, *before, QEMU, *IDLE, *words)
        assert child.poll() is None
        assert Path(f"/proc/{child.pid}/exe").resolve().name == QEMU
        assert not has_state(helped)
        child.kill()
        child.wait()
        wait_for(lambda: set(links(helped)) == {"lo", "br0"}, "the tap to be gone")


def test_it_is_said_on_a_terminal(helped: Host) -> None:
    with Terminal(helped, *NOBODY, COMMAND, "--", QEMU, *IDLE, *BRIDGE) as terminal:
        terminal.wait_shown(f"-nic bridge,br=br0: left to {HELPER}, as this user is not root")
        # Nor is QEMU killed while its helper is at work, which would make the tap nevertheless.
        wait_tap(helped, terminal.child)
    wait_for(lambda: set(links(helped)) == {"lo", "br0"}, "the tap to be gone")


def test_root_has_a_tap_of_the_programs(helped: Host) -> None:
    child = started(helped, COMMAND, "--", QEMU, *IDLE, *BRIDGE)
    assert len(ps(helped)["runs"]) == 1
    child.kill()
    child.wait()
    wait_gone(helped)


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ("chmod u-s /run/helper", BRIDGE),
        (f"echo deny br0 >{ACL}", BRIDGE),
        (f"rm {ACL}", BRIDGE),
        ("chmod 600 /run/tun", BRIDGE),
        (":", (*BRIDGE, "-nic", "tap")),
        (":", (*BRIDGE, "-nic", "nat")),
        (":", (*BRIDGE, "-sandbox", "on,spawn=deny")),
        ("NO_NEW_PRIVS", BRIDGE),
    ],
)
def test_what_plain_qemu_could_not_do_is_an_error(
    helped: Host, setup: str, words: tuple[str, ...]
) -> None:
    before = ("setpriv", "--no-new-privs") if setup == "NO_NEW_PRIVS" else ()
    helped.sh(":" if before else setup)
    done = helped.run(*before, *NOBODY, COMMAND, "--", QEMU, *IDLE, *words, check=False)
    assert done.returncode == 125
    assert 'sudo qemu-netwrap --run-as "$USER" -- ' in done.stderr
    helped.write(ACL, "allow br0\n", mode=0o644)
