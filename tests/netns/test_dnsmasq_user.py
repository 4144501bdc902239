"""Whom dnsmasq runs as: a QEMU of --run-as cannot end it, nor change what it reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab.netns import wait_for
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host

DYNAMIC: Final = range(61184, 65520)
# In QEMU's place, taken over: end the dnsmasq by every signal that ends, and look what was allowed.
TAKEN_OVER: Final = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
    try:
        os.kill(int(sys.stdin.readline()), number)
        print("done", flush=True)
    except PermissionError:
        print("refused", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def without_user(host: Host) -> Host:
    """Return a machine that has no user for dnsmasq."""
    users = Path("/etc/passwd").read_text().splitlines(keepends=True)
    host.write("/etc/passwd", "".join(u for u in users if not u.startswith("dnsmasq:")))
    return host


def server(host: Host) -> int:
    """Return the process of the network's dnsmasq, once it is up."""
    found: list[int] = []

    def is_up() -> bool:
        networks = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
        found[:] = [network["dnsmasq"] for network in networks if network["dnsmasq"]]
        return bool(found)

    wait_for(is_up, "dnsmasq")
    return found[0]


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def attacked(host: Host, run_as: str) -> list[str]:
    """Have a QEMU of RUN_AS attack dnsmasq; return what came of it."""
    host.write("/run/taken-over.py", TAKEN_OVER)
    words = (COMMAND, "-q", "--run-as", run_as, "--", "/usr/bin/python3", "/run/taken-over.py")
    pipe = subprocess.PIPE
    child = host.popen(*words, "-nic", "host-only", stdin=pipe, stdout=pipe)
    pid = server(host)
    answer, _ = child.communicate(f"{pid}\n" * 4, timeout=180)
    netwrap(host, "wait", check=True)
    return answer.split()


def test_a_user_of_its_own(host: Host) -> None:
    """Its end with the network is the leak detector's to see."""
    assert attacked(host, "nobody") == ["refused"] * 3


def test_a_number_of_its_own_where_there_is_no_user(without_user: Host) -> None:
    netwrap(without_user, "network", "up", "nat", check=True)
    pid = server(without_user)
    assert uid_of(pid) in DYNAMIC
    folder = without_user.sh("echo /run/qemu-netwrap/*/networks/qn-nat").strip()
    uid = str(uid_of(pid))
    find = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "find", folder)
    assert without_user.run(*find, "-writable").stdout.split() == [f"{folder}/leases"]
    # It is found, asked anew, and ended like any other.
    pid_now = server(without_user)
    without_user.run("kill", "-9", str(pid_now))
    wait_for(lambda: not Path(f"/proc/{pid_now}").exists(), "its end")
    netwrap(without_user, "--", "true", "-nic", "nat", check=True)
    assert server(without_user) != pid_now
    netwrap(without_user, "network", "down", "nat", check=True)
    assert attacked(without_user, "nobody") == ["refused"] * 3


def test_where_it_has_to_be_nobody_it_is_told(without_user: Host, watch: Watch) -> None:
    without_user.run("sh", "-c", "mount --bind /dev/null $(readlink -f /usr/bin/setpriv)")
    watch.baseline(without_user)
    said = netwrap(without_user, "--", "true", "-nic", "host-only", check=True).stderr
    netwrap(without_user, "wait", check=True)
    assert "dnsmasq runs as nobody" in said
    assert "useradd --system" in said


def test_qemu_cannot_be_that_user(host: Host) -> None:
    done = netwrap(host, "--run-as", "dnsmasq", "--", "true", "-nic", "host-only")
    assert done.returncode == 125
    assert "dnsmasq runs as that user too" in done.stderr
    netwrap(host, "--run-as", "dnsmasq", "--", "true", "-nic", "user", check=True)
