"""`qemu-netwrap exec`: a user's command reaches guests by name, with the user's own identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.shell import Shell
from lab.netns import WEB_BODY
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked
    from lab.user import User

NIC = "nat,model=virtio"


def inside(place: Host | User, network: str, *words: str) -> str:
    return place.run(COMMAND, "exec", network, "--", *words).stdout


def test_users_command_finds_guests_by_name(user: User) -> None:
    resolv_conf = user.host.run("cat", "/etc/resolv.conf").stdout
    with Shell(user, "-nic", NIC, name="web") as web:
        web.wait_report("ready")
        for name in ("web", "web.nat.internal", web.lease.address):
            assert inside(user, "nat", "curl", "-sS", f"http://{name}/") == "web\n"
        assert inside(user, "nat", "busybox", "wget", "-qO-", "http://web/") == "web\n"
        # Beyond the host it is as for guests.
        assert inside(user, "nat", "curl", "-sS", "http://www.example.test/") == WEB_BODY
        assert "web" in inside(user, "nat", COMMAND, "ps")
        assert user.host.run("cat", "/etc/resolv.conf").stdout == resolv_conf
    netwrap(user, "wait", check=True)


def test_dns_is_that_of_the_named_network(user: User) -> None:
    with (
        Shell(user, "-nic", NIC, name="web") as web,
        Shell(user, "-nic", "host-only,model=virtio", name="inner") as inner,
    ):
        web.wait_report("ready")
        inner.wait_report("ready")
        assert inside(user, "nat", "curl", "-sS", "http://web/") == "web\n"
        assert inside(user, "host-only", "curl", "-sS", "http://inner/") == "inner\n"
        assert user.run(COMMAND, "exec", "nat", "curl", "http://inner/", check=False).returncode
    netwrap(user, "wait", check=True)


def test_roots_command_runs_where_the_networks_are(uplinked: Uplinked) -> None:
    host = uplinked.host
    mounts = host.run("cat", "/proc/self/mountinfo").stdout
    with Shell(host, "-nic", NIC, name="web") as web:
        web.wait_report("ready")
        assert inside(host, "nat", "curl", "-sS", "http://web/") == "web\n"
        assert inside(host, "nat", "curl", "-sS", "http://web.nat.internal/") == "web\n"
        assert inside(host, "nat", "readlink", "/proc/self/ns/net") == (
            host.run("readlink", "/proc/self/ns/net").stdout
        )
        assert inside(host, "nat", "id", "-un") == "root\n"
        assert host.run("cat", "/proc/self/mountinfo").stdout == mounts
    netwrap(host, "wait", check=True)
