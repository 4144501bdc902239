"""A bare QEMU that calls our scripts by itself, and what there is to see of it on a machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.netns import wait_for
from lab.tool import IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.netns import Host

IFUP: Final = str(Path(sys.executable).with_name("qemu-ifup"))
IFDOWN: Final = str(Path(sys.executable).with_name("qemu-ifdown"))
SCRIPTS: Final = f"script={IFUP},downscript={IFDOWN}"
STATE: Final = "/run/qemu-netwrap"


def start(
    host: Host, *net: str, env: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a bare QEMU and return when its main loop runs: its scripts have run.

    Its greeting comes before that, and before it heeds SIGTERM; no command is answered earlier.
    """
    words = (QEMU, *IDLE, "-qmp", "stdio", *net)
    child = host.popen(
        *before, *words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
    )
    assert child.stdout is not None
    greeting = child.stdout.readline()
    assert "QMP" in greeting, "QEMU did not come up"
    monitor(child, "qmp_capabilities")
    return child


def monitor(child: subprocess.Popen[str], command: str, **arguments: str) -> None:
    """Have QEMU do something by its monitor, and wait until it is done."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    child.stdin.flush()
    while "return" not in (answer := json.loads(child.stdout.readline())):
        assert "error" not in answer, answer


def end(child: subprocess.Popen[str], number: int) -> int:
    """End QEMU by a signal; return its status."""
    child.send_signal(number)
    return child.wait(60)


def links(host: Host) -> dict[str, dict[str, Any]]:
    """Return all interfaces by name."""
    return {link["ifname"]: link for link in json.loads(host.run("ip", "-j", "link").stdout)}


def ps(host: Host) -> dict[str, Any]:
    """Return what `ps --json` says."""
    found: dict[str, Any] = json.loads(netwrap(host, "ps", "--json", check=True).stdout)
    return found


def has_state(host: Host) -> bool:
    """Whether anything of ours is left there."""
    return host.run("test", "-e", STATE, check=False).returncode == 0


def wait_gone(host: Host) -> None:
    """Wait until nothing of ours is left."""
    wait_for(lambda: not has_state(host) and not keepers(host), "the teardown")


def keepers(host: Host) -> list[int]:
    """Return the process ids of the waiting keepers."""
    return [pid for pid, words in host.processes().items() if "waiter.py" in words]


def keeper(host: Host) -> int:
    """Return the process id of the one keeper, as soon as it waits."""
    wait_for(lambda: bool(keepers(host)), "the keeper to wait")
    (pid,) = keepers(host)
    return pid


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep so far."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])


def pid_of(host: Host, path: str) -> int:
    """Return the process id that a pid file on a machine names."""
    return int(Path(f"/proc/{host.pid}/root{path}").read_text("utf-8"))
