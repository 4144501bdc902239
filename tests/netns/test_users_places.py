"""An ordinary user's launches where something is missing: what works, and what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from lab.confined import filtered, limited, read_only
from lab.tool import COMMAND, QEMU, netwrap, unhurried
from lab.user import BOB, User

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host

NAT: Final = ("--", "true", "-nic", "nat")


def launched(user: User, *before: str) -> None:
    """See that a launch on nat works and leaves nothing; BEFORE stands in front of it."""
    done = user.run(*before, COMMAND, *NAT, check=False)
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
    assert user.run(*before, COMMAND, "wait").stdout == ""


def refused(user: User, *words: str) -> str:
    """Return what a launch that fails says, and its hint; nothing is left."""
    done = netwrap(user, "--", QEMU, *words)
    assert done.returncode == 125
    return done.stderr


def test_no_runtime_folder(host: Host, watch: Watch) -> None:
    user = User(host, runtime=False)
    watch.baseline(host)
    launched(user)


@pytest.mark.parametrize(
    "script",
    ["mkdir -m 755 {0}", "mkdir -m 777 {0}; chown 1000:1000 {0}", "ln -s /home/alice {0}"],
    ids=["another user's", "open to others", "a link"],
)
def test_a_folder_that_is_not_to_be_trusted(host: Host, watch: Watch, script: str) -> None:
    user = User(host, runtime=False)
    folder = f"/tmp/qemu-netwrap-{user.uid}"  # noqa: S108 - the simulated machine's
    host.sh(script.format(folder))
    watch.baseline(host)
    for words in (NAT, ("ps",), ("gc",), ("plan", *NAT)):
        done = netwrap(user, *words)
        assert done.returncode == 125
        assert f"{folder} belongs to another user, or others may write to it" in done.stderr


def test_root_of_a_user_namespace_with_one_id(user: User) -> None:
    launched(user, "unshare", "-Ur")


def test_settings_that_are_read_only(host: Host, watch: Watch) -> None:
    user = User(host)
    read_only(host, "/proc/sys")
    watch.baseline(host)
    launched(user)


def test_no_user_namespaces(host: Host, watch: Watch) -> None:
    user = User(host, before=limited(host))
    watch.baseline(host)
    told = refused(user, "-nic", "nat")
    assert "user.max_user_namespaces is 0: sudo sysctl -w user.max_user_namespaces=" in told
    lines = netwrap(user, "doctor").stdout
    assert "can make no network namespace: user.max_user_namespaces is 0" in lines


def test_a_container_that_forbids_them(host: Host, watch: Watch) -> None:
    user = User(host, before=filtered())
    watch.baseline(host)
    assert "a network namespace of this user's own: Operation not permitted" in refused(
        user, "-nic", "nat"
    )


@pytest.mark.parametrize("mode", [None, 0o600])
def test_no_tun(host: Host, watch: Watch, mode: int | None) -> None:
    user = User(host, tun=mode)
    watch.baseline(host)
    told = refused(user, "-nic", "nat")
    assert "taps: /dev/net/tun: " in told
    assert ("sudo chmod 666 /dev/net/tun" if mode else "/dev/net/tun") in told


def test_parts_of_the_host_are_refused(user: User, watch: Watch) -> None:
    user.host.run("ip", "link", "add", "br7", "type", "bridge")
    watch.baseline(user.host)
    for words, part in ((("tap,br=br7"), "bridge br7"), ("tap,br=br8,uplink=eth0", "uplink eth0")):
        told = refused(user, "-nic", words)
        assert f"{part} is the host's, and so root's" in told
        assert 'sudo qemu-netwrap --run-as "$USER"' in told
        assert "/etc/qemu/bridge.conf" in told
    done = netwrap(user, "vfio", "bind", "0000:00:01.0")
    assert (done.returncode, "sudo qemu-netwrap vfio bind" in done.stderr) == (125, True)


def test_two_users_do_not_meet(user: User, watch: Watch) -> None:
    bob = User(user.host, *BOB)
    watch.baseline(user.host)
    netwrap(user, "network", "up", "nat", check=True)
    try:
        assert "qn-nat" not in netwrap(bob, "ps", check=True).stdout
        launched(bob)
        assert netwrap(bob, "gc", check=True).stdout == "nothing was left\n"
        assert "qn-nat" in netwrap(user, "ps", check=True).stdout
    finally:
        netwrap(user, "network", "down", "nat", check=True)
