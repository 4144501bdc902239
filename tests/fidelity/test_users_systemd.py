"""`systemd-run --user`: QEMU is the unit's main process, and a stop leaves nothing to anybody."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from fidelity.booted import Booted
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from lab.user import User

_UNITS: Final = """
mkdir units
cd units
for each in basic shutdown default; do
    printf '[Unit]\\nDefaultDependencies=no\\n' >$each.target
done
"""


class Manager:
    """The service manager of a user who is logged in."""

    def __init__(self, booted: Booted, user: User) -> None:
        """Start it as a unit of the machine's own; it takes commands on return."""
        self.booted, self.user = booted, user
        places = {
            "XDG_RUNTIME_DIR": user.runtime_folder,
            "SYSTEMD_UNIT_PATH": f"{user.runtime_folder}/units",
            "SYSTEMD_GENERATOR_PATH": "/nonexistent",
            "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": "/nonexistent",
        }
        booted.unit(
            "manager.service",
            "[Service]",
            f"User={user.name}",
            "Delegate=yes",
            f"Environment={' '.join(f'{name}={value}' for name, value in places.items())}",
            "ExecStart=/lib/systemd/systemd --user --log-target=null",
        )
        booted.systemctl("start", "manager")
        ready = ("systemctl", "--user", "is-system-running")
        wait_for(lambda: self.run(*ready, check=False).stdout == "running\n", "the manager")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as the user, among the processes that systemd has started."""
        become = (f"--reuid={self.user.uid}", f"--regid={self.user.uid}", "--clear-groups")
        login = (f"HOME={self.user.home}", f"XDG_RUNTIME_DIR={self.user.runtime_folder}")
        path = "PATH=/usr/bin:/bin:/usr/sbin"
        return self.booted.run(
            *("setpriv", *become, "env", "-i", path, *login, *words), check=check
        )

    def start(self, unit: str) -> None:
        """Start an idle QEMU on nat as a unit, and return when its run is there."""
        words = (COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "nat", "-name", unit)
        self.run("systemd-run", "--user", f"--unit={unit}", *words)
        running = (unit, "running")
        wait_for(lambda: running in {(r["name"], r["state"]) for r in self.ps()["runs"]}, unit)
        wait_for(lambda: "flock" in self.processes(unit), "its keeper, asleep")

    def ps(self) -> dict[str, Any]:
        """Return what `ps` tells."""
        told: dict[str, Any] = json.loads(self.run(COMMAND, "ps", "--json").stdout)
        return told

    def processes(self, unit: str) -> str:
        """Return what is in a unit's control group, as systemd shows it."""
        return self.run("systemctl", "--user", "status", unit, check=False).stdout


@contextlib.contextmanager
def managed(user: User) -> Iterator[Manager]:
    """Yield the manager of a user; nothing of it is left afterwards."""
    user.run("sh", "-euc", _UNITS, cwd=user.runtime_folder)
    try:
        with Booted(user.host) as booted:
            yield Manager(booted, user)
    finally:
        user.host.run(
            "sh", "-c", f"rm -rf {user.runtime_folder}/units {user.runtime_folder}/systemd"
        )


def test_a_unit_of_the_user(user: User) -> None:
    with managed(user) as manager:
        manager.start("vm")
        main = manager.run("systemctl", "--user", "show", "--value", "--property=MainPID", "vm")
        (run,) = manager.ps()["runs"]
        assert main.stdout == f"{run['pid']}\n"
        manager.run("systemctl", "--user", "stop", "vm")
        wait_for(lambda: manager.ps() == {"runs": [], "networks": []}, "the teardown")


def test_the_first_unit_ends_and_the_seconds_network_goes_on(user: User) -> None:
    """What leads out and the name server were in the first one's control group."""
    with managed(user) as manager:
        manager.start("first")
        manager.start("second")
        assert "dnsmasq" in manager.processes("first")
        assert "dnsmasq" not in manager.processes("second")
        manager.run("systemctl", "--user", "stop", "first")

        def is_whole() -> bool:
            (network,) = manager.ps()["networks"]
            return len(network["members"]) == 1 and not network["faults"]

        wait_for(is_whole, "the second's network")
        for part in ("dnsmasq", "slirp4netns"):
            assert part in manager.processes("second")
        manager.run("systemctl", "--user", "stop", "second")
        wait_for(lambda: manager.ps() == {"runs": [], "networks": []}, "the teardown")
