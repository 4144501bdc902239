"""A clock that jumps by years, before a launch and while it runs: nothing of ours goes by it.

faketime gives every program on the simulated machine another clock, dnsmasq included.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from fidelity.running import QUIET, STATE, WRAPPED, is_qemu, keeper_of, links
from lab.netns import link, wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from lab.fixtures import HostFactory, Watch
    from lab.netns import Host

_YEAR: Final = 365 * 24 * 3600
# dnsmasq gets no environment of ours, so all is told by files. What a real clock does not do when
# it jumps is switched off where it can be: files of another age, another monotonic clock.
_ENVIRONMENT: Final = {"NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
CONFIGURED: Final = "/etc/qemu-netwrap/config.toml"
_LIBRARY: Final = "faketime/libfaketimeMT.so.1"


class Clock:
    """A machine whose clock is off by years."""

    def __init__(self, host: Host, watch: Watch) -> None:
        """Have HOST's programs take their time from faketime; it tells the true one yet."""
        self.host = host
        (library,) = Path("/usr/lib").glob(f"*/{_LIBRARY}")
        host.run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")  # noqa: S108  it leaves files there
        self.jump(0)
        host.write("/etc/ld.so.preload", f"{library}\n")
        watch.baseline(host)

    def jump(self, years: int) -> None:
        """Have the clock jump to this far from the true time."""
        self.years = years
        self.host.write("/etc/faketimerc", f"{years:+}y\n")

    def run(self, *words: str) -> str:
        """Run one of our commands; return what it printed."""
        return self.host.run(COMMAND, *words, env=_ENVIRONMENT).stdout

    def start(self, *words: str) -> int:
        """Start a run; return its process id when its network is all there."""
        child = self.host.popen(*WRAPPED, QEMU, *IDLE, *words, env=_ENVIRONMENT, **QUIET)
        wait_for(lambda: is_qemu(child.pid), "QEMU")
        keeper_of(self.host, child.pid)
        return child.pid

    def is_at(self, moment: int) -> bool:
        """Whether a moment in seconds since the epoch is about now by the machine's clock."""
        return abs(moment - time.time() - self.years * _YEAR) < _YEAR / 2


def _leases(clock: Clock) -> list[dict[str, Any]]:
    """Return the leases of the nat network."""
    (network,) = json.loads(clock.run("ps", "--json"))["networks"]
    found: list[dict[str, Any]] = network["leases"]
    return found


@pytest.mark.parametrize(("first", "then"), [(20, -20), (-20, 10)])
def test_a_clock_that_jumps(
    host: Host, host_factory: HostFactory, watch: Watch, first: int, then: int
) -> None:
    guest = host_factory("guest")
    link(host, "port", guest, "eth0")
    guest.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)  # it would keep what it learns by that
    # The guest's MAC is of no run's.
    host.write(CONFIGURED, '[networks.nat]\nmode = "nat"\nmac_filter = false\nip_filter = false\n')
    watch.baseline(host, guest)
    clock = Clock(host, watch)
    clock.jump(first)
    one = clock.start("-nic", "nat")
    host.run("ip", "link", "set", "port", "master", "qn-nat")

    def is_leased() -> bool:
        """Have the guest ask for its address; tell whether its lease goes by the clock."""
        ask = ("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "30", "-s", "/bin/true")
        guest.run(*ask)
        leases = _leases(clock)  # none if the clock has jumped since: dnsmasq drops what is over
        addresses.update(lease["address"] for lease in leases)
        return bool(leases) and clock.is_at(leases[-1]["expires"])

    addresses: set[str] = set()
    assert is_leased()
    clock.jump(then)
    # faketime looks at its file every ten seconds.
    wait_for(is_leased, "dnsmasq to see the clock jump")
    assert len(addresses) == 1
    two = clock.start("-nic", "nat")
    assert {f"qn{one}-0", f"qn{two}-0"} <= links(host)
    assert clock.run("gc") == "nothing was left\n"
    clock.run("stop", str(one))
    clock.jump(0)
    assert [run["run"] for run in json.loads(clock.run("ps", "--json"))["runs"]] == [str(two)]
    clock.run("stop", str(two))
    host.run("ip", "link", "set", "port", "nomaster")
    assert host.run("ls", STATE, check=False).returncode != 0
