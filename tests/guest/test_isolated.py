"""isolated: the guests of a network reach what it leads to, and not each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell
from lab.netns import WEB_ADDRESS

if TYPE_CHECKING:
    from lab.netns import Uplinked

CONFIG = """
[networks.nat]
mode = "nat"
isolated = {}
"""


@pytest.mark.parametrize("isolated", ["true", "false"])
def test_guests_of_a_network(uplinked: Uplinked, isolated: str) -> None:
    host = uplinked.host
    host.write("/etc/qemu-netwrap/config.toml", CONFIG.format(isolated))
    words = ("-nic", "nat,model=virtio")
    with Shell(host, *words, name="one") as one, Shell(host, *words, name="two") as two:
        there = {two.lease.address, WEB_ADDRESS}
        reached = {WEB_ADDRESS} if isolated == "true" else there
        assert one.reached(*there) == reached
        # Nor by way of the gateway, which routes.
        one.ask(f"ip route add {two.lease.address} via {one.lease.gateway}")
        two.ask(f"ip route add {one.lease.address} via {two.lease.gateway}")
        assert one.reached(*there) == reached
