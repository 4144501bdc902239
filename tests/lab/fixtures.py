"""Fixtures: simulated machines that must be, after each test, as they were before it."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Protocol

import pytest

from lab.leaks import Snapshot, snapshot, wait_same
from lab.netns import Host, Uplinked, internet
from lab.user import ALICE, BOB, User

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOOLS = (
    *("unshare", "nsenter", "ip", "bridge", "tc", "nft", "busybox", "dnsmasq"),
    *("iptables-nft", "iptables-legacy", "dbus-daemon", "pasta", "slirp4netns", "newuidmap"),
)


class HostFactory(Protocol):
    """Makes one more simulated machine."""

    def __call__(self, name: str) -> Host:
        """Return a new machine of that name, watched and closed with the test."""


class Watch:
    """The leak detector's memory: what every machine of a test looked like."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._before: dict[Host, Snapshot] = {}

    def baseline(self, *hosts: Host) -> None:
        """Take the machines as they are now for what they have to be again after the test.

        For tests that first prepare a machine: what they made so far counts as the machine's own.
        """
        for host in hosts:
            self._before[host] = snapshot(host)

    def check(self) -> None:
        """AssertionError with what is different, if a machine does not become what it was."""
        failures = []
        for host, before in self._before.items():
            try:
                wait_same(host, before)
            except AssertionError as error:
                failures.append(str(error))
        if failures:
            pytest.fail("\n".join(failures), pytrace=False)


@pytest.fixture(scope="session")
def lab() -> None:
    """See to it that simulated machines can be made here."""
    if os.geteuid() != 0:
        pytest.skip("namespaces are made as root")
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def watch(lab: None) -> Iterator[Watch]:
    """Yield this test's leak detector; it checks after the body, while the machines live."""
    yield (found := Watch())
    found.check()


@pytest.fixture
def _machines(lab: None) -> Iterator[contextlib.ExitStack]:
    """Keep the machines of this test: asked for before `watch`, so closed after its check."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def host_factory(_machines: contextlib.ExitStack, watch: Watch) -> HostFactory:
    """Return a function that makes lone machines, each under the leak detector."""

    def make(name: str) -> Host:
        host = _machines.enter_context(Host(name))
        watch.baseline(host)
        return host

    return make


@pytest.fixture
def host(host_factory: HostFactory) -> Host:
    """Return a machine with nothing but a loopback interface, under the leak detector."""
    return host_factory("host")


@pytest.fixture
def uplinked(_machines: contextlib.ExitStack, watch: Watch) -> Uplinked:
    """Return a machine with an uplink to a small internet; the machine is under the detector."""
    both = _machines.enter_context(internet())
    watch.baseline(both.host)
    return both


@pytest.fixture
def uplinked6(_machines: contextlib.ExitStack, watch: Watch) -> Uplinked:
    """Return the same with IPv6."""
    both = _machines.enter_context(internet(ipv6=True))
    watch.baseline(both.host)
    return both


@pytest.fixture
def users(uplinked: Uplinked, watch: Watch) -> tuple[User, User]:
    """Return alice and bob, ordinary users of one machine with an uplink, under the detector."""
    found = User(uplinked.host, *ALICE), User(uplinked.host, *BOB)
    watch.baseline(uplinked.host)
    return found


@pytest.fixture
def user(uplinked: Uplinked, watch: Watch) -> User:
    """Return alice, an ordinary user of a machine with an uplink, under the detector."""
    found = User(uplinked.host)
    watch.baseline(uplinked.host)
    return found


@pytest.fixture
def user6(uplinked6: Uplinked, watch: Watch) -> User:
    """Return alice on a machine with IPv6."""
    found = User(uplinked6.host)
    watch.baseline(uplinked6.host)
    return found
