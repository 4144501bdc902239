"""Netdevs of ours in -readconfig files, with real QEMUs of both versions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from lab import qemus
from lab.netns import wait_for
from lab.tool import COMMAND, QEMU, netwrap

if TYPE_CHECKING:
    from pathlib import Path

    from lab.netns import Host

ON_NAT: Final = """\
# a VM
[netdev "n0"]
  type = "host-only"

[device "d0"]
  driver = "e1000"
  netdev = "n0"
"""
BASE: Final = ("-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults", "-S")


@pytest.fixture(params=dict.fromkeys((qemus.installed(), 10)))
def qemu(request: pytest.FixtureRequest) -> str:
    """A QEMU's program."""
    return program(request.param)


def program(version: int) -> str:
    """Return a QEMU of that major version."""
    return QEMU if version == qemus.installed() else str(qemus.recent())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a VM is described in."""
    path = tmp_path / "vm.cfg"
    path.write_text(ON_NAT)
    return path


def taps(host: Host) -> list[str]:
    """The taps on the host-only network."""
    found = json.loads(host.run("ip", "-j", "link").stdout)
    return [link["ifname"] for link in found if link.get("master") == "qn-host-only"]


def test_its_netdev_is_provisioned_and_the_file_left_alone(
    host: Host, qemu: str, file: Path
) -> None:
    before = file.stat()
    child = host.popen(
        *(COMMAND, "-q", "--", qemu, *BASE, "-monitor", "stdio", "-readconfig", str(file)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_for(lambda: bool(taps(host)), "the tap")
    out, _ = child.communicate("info network\nquit\n", timeout=60)
    assert "n0: index=0,type=tap,fd=" in out
    assert "macaddr=52:54:00:12:34:56" not in out
    assert (file.read_text(), file.stat().st_mtime_ns) == (ON_NAT, before.st_mtime_ns)
    host.run(COMMAND, "wait")


# By major version; what QEMU 7 has is tried where QEMU 7 is installed.
LEAVING: Final = [
    (7, ("--run-as", "nobody"), ()),
    (7, (), ("-daemonize",)),
    (7, (), ("-runas", "nobody")),
    (7, (), ("-daemonize", "-chroot", "/var/empty", "-runas", "nobody")),
    (7, (), ("-sandbox", "on,spawn=deny")),
    (10, (), ("-daemonize",)),
    (10, (), ("-daemonize", "-run-with", "chroot=/var/empty,user=nobody")),
    (10, (), ("-sandbox", "on,spawn=deny")),
]


@pytest.mark.parametrize(
    ("version", "ours", "theirs"),
    [case for case in LEAVING if case[0] in {qemus.installed(), 10}],
)
def test_also_for_a_qemu_that_leaves(
    host: Host, version: int, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    """A file of the tests' folder could not be reached by nobody, nor could the other QEMU."""
    qemu = program(version)
    file, pid_file = "/run/vm.cfg", "/run/lock/qemu.pid"
    host.write(file, ON_NAT)
    host.write("/var/empty/x", "")
    words = (*BASE, "-monitor", "none", "-pidfile", pid_file, *theirs, "-readconfig", file)
    null = subprocess.DEVNULL
    child = host.popen(COMMAND, *ours, "--", qemu, *words, stdout=null, stderr=null)
    wait_for(lambda: host.run("test", "-s", pid_file, check=False).returncode == 0, "QEMU")
    assert len(taps(host)) == 1
    os.kill(int(host.read(pid_file)), signal.SIGTERM)
    child.wait(60)
    host.run(COMMAND, "wait")
    host.run("rm", "-f", pid_file)


def test_from_a_pipe(host: Host, file: Path) -> None:
    """It can be read only once, so QEMU gets a copy, also where nothing in it is ours."""
    words = f"{QEMU} {' '.join(BASE)} -monitor stdio"
    for text, expected in ((ON_NAT, "type=tap"), ('[netdev "u"]\ntype = "user"\n', "type=user")):
        file.write_text(text.replace("\ntype", "\n type"))
        script = f"echo info network | {COMMAND} -q -- {words} -readconfig <(cat {file}) & wait $!"
        child = host.popen(
            "bash", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert child.stdout is not None
        lines = iter(child.stdout.readline, "")
        assert any(expected in line for line in lines)
        for pid, words_of_it in host.processes().items():
            if "-readconfig" in words_of_it and "bash" not in words_of_it:
                os.kill(pid, signal.SIGTERM)
        child.wait(60)
        host.run(COMMAND, "wait")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Could not open"),
        ("nonsense\n", "no group defined"),
        ('[netdev "a"]\n  type = "tap"\n\n  \n', "parse error"),
    ],
)
def test_what_qemu_cannot_read_it_says_itself(
    host: Host, file: Path, text: str | None, message: str
) -> None:
    file.unlink() if text is None else file.write_text(text)
    for more in ((), ("-nic", "nat")):
        words = (QEMU, *BASE, *more, "-readconfig", str(file))
        done, bare = netwrap(host, "--", *words), host.run(*words, check=False)
        assert (done.returncode, done.stderr) == (bare.returncode, bare.stderr)
        assert message in done.stderr


def test_qemus_own_configuration(host: Host) -> None:
    """It is read before any word, unless -no-user-config says otherwise."""
    host.write("/etc/qemu/qemu.conf", ON_NAT)
    shown = json.loads(netwrap(host, "plan", "--json", QEMU, *BASE, check=True).stdout)
    copy = "<copy of /etc/qemu/qemu.conf>"
    assert shown["argv"] == [QEMU, "-no-user-config", "-readconfig", copy, *BASE]
    words = (QEMU, *BASE, "-no-user-config")
    shown = json.loads(netwrap(host, "plan", "--json", *words, check=True).stdout)
    assert shown["argv"] == list(words)
