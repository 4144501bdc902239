"""Network managers leave our devices alone from the moment they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import neighbours
from lab.netns import internet, wait_for
from lab.tool import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

# Made as ours are, by somebody that no manager was told of.
OTHER = """
ip link add other type bridge
ip link set other up
ip address add 10.9.9.1/24 dev other
ip tuntap add other0 mode tap
ip link set other0 master other up
"""


@pytest.fixture
def host(lab: None) -> Iterator[Host]:
    """Yield a machine with an uplink. A manager is at work on it, so no leak detector."""
    with internet() as both:
        yield both.host


def test_network_manager(host: Host) -> None:
    neighbours.network_manager(host)

    def known() -> dict[str, str]:
        rows = host.run("nmcli", "-t", "-f", "DEVICE,STATE", "device").stdout.splitlines()
        return dict(row.split(":", 1) for row in rows)

    with running(host) as tap:
        # By the time it has taken what was made later, it would have taken ours.
        host.run("sh", "-euc", OTHER)
        for name in ("other", "other0"):
            taken = f"NetworkManager to take {name}"
            wait_for(lambda: known().get(name, "unmanaged") != "unmanaged", taken)  # noqa: B023
        assert [known()[name] for name in ("qn-nat", tap)] == ["unmanaged"] * 2
    host.run("test", "!", "-e", "/run/NetworkManager/conf.d/qemu-netwrap-qn-nat.conf")


def test_networkd(host: Host) -> None:
    neighbours.networkd(host)

    def state(name: str) -> str:
        script = 'cat "/run/systemd/netif/links/$(cat "/sys/class/net/$1/ifindex")"'
        lines = host.run("sh", "-c", script, "state", name, check=False).stdout.splitlines()
        return dict(line.partition("=")[::2] for line in lines).get("ADMIN_STATE", "")

    host.run("sh", "-euc", OTHER)
    wait_for(lambda: state("other") in {"configuring", "configured"}, "networkd's grasp")
    with running(host) as tap:
        for name in ("qn-nat", tap):
            wait_for(lambda: state(name) == "unmanaged", f"networkd to see {name}")  # noqa: B023
    host.run("test", "!", "-e", "/run/systemd/network/05-qemu-netwrap-qn-nat.network")
