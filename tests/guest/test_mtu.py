"""The MTU of what leads out is that of the network, its taps and its guests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from guest.shell import Shell, link
from lab.netns import WEB_ADDRESS

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Uplinked


def test_1400_end_to_end(uplinked: Uplinked, watch: Watch) -> None:
    host, net = uplinked.host, uplinked.net
    for machine, device in ((host, "eth0"), (net, "peer0")):
        machine.run("ip", "link", "set", device, "mtu", "1400")
    watch.baseline(host)
    words = ("-nic", "nat,model=virtio")
    with Shell(host, *words, name="one") as one, Shell(host, *words, name="two") as two:
        for guest in (one, two):
            assert guest.ask("cat /sys/class/net/eth0/mtu") == "1400\n"
            guest.ask(f"try 5 ping -c1 -s 1372 {WEB_ADDRESS}")  # with 28 bytes of headers
        ports = json.loads(host.run("ip", "-j", "link", "show", "master", "qn-nat").stdout)
        assert [port["mtu"] for port in ports] == [1400, 1400]
        assert link(host, "qn-nat")["mtu"] == 1400
