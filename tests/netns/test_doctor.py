"""doctor on real hosts: what it sees, and that it changes nothing."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from lab.confined import filtered
from lab.leaks import snapshot
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap, wait_lookout

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.leaks import Snapshot
    from lab.netns import Host, Uplinked

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
NO_TUN = "mkdir -p /dev/net; mount -t tmpfs net /dev/net"

Seen = tuple[int, dict[str, dict[str, str]]]


def doctor(host: Host, *user: str, setup: str = ":") -> Seen:
    """Return doctor's status and its lines; SETUP is shell in a mount namespace of its own."""
    words = ("unshare", "-m", "sh", "-ec", f'{setup}\nexec "$@"', "sh")
    done = host.run(*words, *user, COMMAND, "doctor", "--json", cwd="/", check=False)
    assert done.stderr == ""
    data = json.loads(done.stdout)
    assert data["works"] == (done.returncode == 0)
    return done.returncode, {line["what"]: line for line in data["lines"]}


def changes(host: Host, before: Snapshot) -> list[str]:
    """Return what is different; what the kernel still does to a new bridge is its own affair."""
    lines = before.diff(snapshot(host))
    return [line for line in lines if " qn-nat" not in line and "dev=qn-nat" not in line]


def test_a_host_that_can(uplinked: Uplinked) -> None:
    before = snapshot(uplinked.host)
    status, seen = doctor(uplinked.host)
    assert status == 0
    assert {line["state"] for line in seen.values()} <= {"ok", "warning"}
    assert seen["QEMU"]["found"].startswith(f"/usr/bin/{QEMU}, ")
    assert seen["uplink"]["found"].startswith("eth0 ")
    assert snapshot(uplinked.host) == before


def test_for_people(uplinked: Uplinked) -> None:
    text = netwrap(uplinked.host, "doctor", check=True).stdout
    assert "/dev/net/tun" in text
    rows = [line for line in text.splitlines() if not line.startswith("  > ")]
    assert {row.split()[0] for row in rows} <= {"ok", "warning"}


def test_an_ordinary_user(uplinked: Uplinked) -> None:
    netwrap(uplinked.host, "network", "up", "nat", check=True)
    wait_lookout(uplinked.host)
    before = snapshot(uplinked.host)
    status, seen = doctor(uplinked.host, *NOBODY)
    # The machine's /dev/net/tun may be closed to users: that is told in a line of its own.
    assert status == (seen["/dev/net/tun"]["state"] == "broken")
    assert seen["privilege"]["state"] == "ok"
    assert "uplink" not in seen
    assert seen["way out"]["found"].startswith("/usr/bin/slirp4netns, ")
    assert changes(uplinked.host, before) == []
    netwrap(uplinked.host, "network", "down", "nat", check=True)


@pytest.mark.parametrize(
    ("setup", "user", "what", "found"),
    [
        (NO_TUN, (), "/dev/net/tun", "the node is missing"),
        (
            f"{NO_TUN}; mknod -m 0 /dev/net/tun c 10 200; chown 1:1 /dev/net/tun",
            ("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
            "/dev/net/tun",
            "may not open",
        ),
        ("mount --bind /dev/null /dev/net/tun", (), "/dev/net/tun", "not the tun device"),
        (
            ":",
            (*filtered(), "setpriv", "--bounding-set=-net_admin"),
            "privilege",
            "CAP_NET_ADMIN",
        ),
        ("mount --bind /dev/null /usr/sbin/nft", (), "nft", "missing"),
        (
            "mount --bind /dev/null /usr/sbin/dnsmasq",
            (),
            "dnsmasq",
            "missing",
        ),
    ],
)
def test_what_is_broken(
    host: Host, setup: str, user: tuple[str, ...], what: str, found: str
) -> None:
    status, seen = doctor(host, *user, setup=f"mount -t tmpfs run /run\n{setup}")
    assert status == 1
    assert seen[what]["state"] == "broken"
    assert found in seen[what]["found"]
    assert seen[what]["remedy"]


def test_in_a_container(host: Host) -> None:
    """The remedy is the container's to give; systemd's CONTAINER_INTERFACE tells of one."""
    told = "mkdir /run/systemd; echo podman >/run/systemd/container"
    setup = f"mount -t tmpfs run /run; {told}; {NO_TUN}"
    words = (*filtered(), "setpriv", "--bounding-set=-net_admin,-net_raw")
    _, seen = doctor(host, *words, setup=setup)
    assert "--device /dev/net/tun" in seen["/dev/net/tun"]["remedy"]
    assert "--cap-add NET_ADMIN --cap-add NET_RAW" in seen["privilege"]["remedy"]
    assert "podman" in seen["privilege"]["found"]


def test_uplink_and_other_firewalls(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "eth0", "master", "br0")
    host.run(
        "nft", "-f", "-",
        input="table ip filter { chain FORWARD { type filter hook forward priority 0;"
        " policy drop; }; }",
    )  # fmt: skip
    watch.baseline(host)
    status, seen = doctor(host)
    assert status == 0
    assert seen["uplink"]["found"].startswith("eth0, a port of br0")
    assert seen["other firewalls"]["state"] == "ok"
    assert seen["other firewalls"]["found"].startswith("iptables-nft: rules let")


def test_leftovers_of_dead_runs(uplinked: Uplinked) -> None:
    host = uplinked.host
    child = host.popen(COMMAND, "--", QEMU, *IDLE, "-nic", "nat")
    runs = f"/proc/{host.pid}/root/run/qemu-netwrap"
    wait_for(lambda: "waiter.py" in " ".join(host.processes().values()), f"a run in {runs}")
    assert doctor(host)[1]["leftovers"]["state"] == "ok"
    keeper = next(pid for pid, words in host.processes().items() if "waiter.py" in words)
    host.run("kill", "-9", str(keeper))
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = snapshot(host)
    status, seen = doctor(host)
    assert status == 0
    assert str(child.pid) in seen["leftovers"]["found"]
    assert seen["leftovers"]["remedy"] == "qemu-netwrap gc"
    assert changes(host, before) == []
    netwrap(host, "gc", check=True)
