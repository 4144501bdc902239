"""What the tests of the contract share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from contract.acting import Actor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.fixtures import Watch
    from lab.netns import Host


@pytest.fixture
def actors(host: Host) -> Iterator[Callable[[], Actor]]:
    """Return a function that starts one more process which acts on `host`."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Actor(host))


@pytest.fixture
def routed(host: Host, watch: Watch) -> Host:
    """Return a machine with an uplink that networks need forwarding of; no packet leaves by it."""
    host.sh("ip link add up0 address 52:54:00:00:00:02 type bridge")
    host.sh("echo 1 >/proc/sys/net/ipv6/conf/up0/disable_ipv6; ip link set up0 up")
    host.sh("ip address add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1")
    watch.baseline(host)
    return host
