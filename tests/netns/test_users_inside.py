"""In a user's network namespace, by `exec`: QEMU with qemu-ifup, and a launch of the tool's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.user import User

EXEC: Final = (COMMAND, "exec", "nat", "--")
SCRIPTS: Final = ",".join(
    f"{key}={Path(COMMAND).with_name(name)}"
    for key, name in (("script", "qemu-ifup"), ("downscript", "qemu-ifdown"))
)


def runs(user: User) -> dict[str, dict[str, Any]]:
    """Return the runs that `ps` tells of, by their names."""
    told = json.loads(netwrap(user, "ps", "--json", check=True).stdout)
    return {run["run"]: run for run in told["runs"] if run["state"] == "running"}


def test_qemu_with_qemu_ifup_and_a_launch(user: User) -> None:
    """Each joins the network that is up there, and leaves it; what is outside stays as it is."""
    netdev = ("-netdev", f"tap,id=n0,ifname=tap7,{SCRIPTS}")
    outside = user.run(QEMU, *IDLE, *netdev, check=False)
    assert "could not configure /dev/net/tun" in outside.stderr
    first = user.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "nat")
    wait_for(lambda: str(first.pid) in runs(user), "the network")
    hooked = user.popen(*EXEC, QEMU, *IDLE, *netdev)
    launched = user.popen(*EXEC, COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "nat")
    names = {str(first.pid), "tap7", str(launched.pid)}
    wait_for(lambda: set(runs(user)) == names, "all three")
    assert runs(user)["tap7"]["pid"] == hooked.pid
    ports = user.run(*EXEC, "ip", "-o", "link", "show", "master", "qn-nat").stdout
    for tap in ("tap7", f"qn{first.pid}-0", f"qn{launched.pid}-0"):
        assert f" {tap}: " in ports
    assert "tap7" not in user.host.run("ip", "-o", "link").stdout
    for child in (hooked, launched, first):
        child.terminate()
        child.wait()
    netwrap(user, "wait", check=True)
    assert runs(user) == {}
