"""Ports of the host that lead to an ordinary user's guest, where they cannot be had; subuids."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from lab.tool import COMMAND, QEMU, netwrap, unhurried
from lab.user import User

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host

SERVER: Final = "import socket, time; s = socket.create_server(('', 8080)); time.sleep(600)"


def test_a_port_that_a_program_has(user: User) -> None:
    server = user.popen(sys.executable, "-c", SERVER)
    user.host.wait_listening("tcp", 8080)
    done = netwrap(user, "--", QEMU, "-nic", "nat,hostfwd=tcp::8080-:80")
    assert done.returncode == 125
    assert f"tcp port 8080 of the host is taken by python3 (pid {server.pid})" in done.stderr
    server.kill()
    server.wait()


def test_a_privileged_port(user: User) -> None:
    done = netwrap(user, "--", QEMU, "-nic", "nat,hostfwd=tcp::80-:80")
    assert done.returncode == 125
    assert "tcp port 80 of the host: Permission denied" in done.stderr
    assert "sudo sysctl net.ipv4.ip_unprivileged_port_start=80" in done.stderr


def test_each_run_has_its_ports_while_others_live(user: User) -> None:
    """Both families and protocols; they are free when their run has ended."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    idle = ("-accel", "tcg", "-M", "none", "-display", "none", "-monitor", "none", "-S")
    led = ("tcp::8080-:80", "udp::5353-:53", "tcp:[::]:8081-:80", "udp:[::]:5354-:53")
    first = user.popen(COMMAND, "--", QEMU, *idle, "-nic", "nat,model=virtio", **quiet)
    words = ",".join(("nat,model=virtio", *(f"hostfwd={each}" for each in led)))
    second = user.popen(COMMAND, "--", QEMU, *idle, "-nic", words, **quiet)
    for protocol, port in (("tcp", 8080), ("udp", 5353), ("tcp6", 8081), ("udp6", 5354)):
        user.host.wait_listening(protocol, port)
    second.kill()
    second.wait()
    netwrap(user, "wait", str(second.pid), check=True)
    for protocol, port in (("tcp", 8080), ("udp", 5353), ("tcp6", 8081), ("udp6", 5354)):
        assert not user.host.listening(protocol, port)
    assert first.poll() is None
    first.kill()
    first.wait()
    netwrap(user, "wait", check=True)


def test_subordinate_ids(host: Host, watch: Watch) -> None:
    user = User(host, subids=(100000, 65536))
    watch.baseline(host)
    words = ("unshare", "-Ur", "--map-auto", COMMAND)
    done = user.run(*words, "--", "true", "-nic", "nat", check=False)
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
    user.run(*words, "wait")
