"""host-only: the guests and the host reach each other, and nothing else passes."""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from guest.shell import Shell, page, reached
from lab.netns import UPLINK_ADDRESS, WEB_ADDRESS

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Uplinked


def test_host_only_in_all_forms(uplinked: Uplinked, watch: Watch) -> None:
    host, net = uplinked.host, uplinked.net
    # On a host that is a router, it is the network's rules alone that keep it closed.
    host.set_sysctl("net.ipv4.ip_forward", 1)
    watch.baseline(host)
    netdev = ("-netdev", "host-only,id=n0", "-device", "virtio-net-pci,netdev=n0")
    with (
        Shell(host, "-nic", "host-only,model=virtio", name="nic") as nic,
        Shell(host, *netdev, name="netdev") as dev,
        Shell(host, "-net", "nic,model=virtio", "-net", "host-only", name="net") as hub,
        Shell(host, "-nic", "nat,model=virtio", name="nat") as nat,
    ):
        # No way back is missing: the internet knows where all of them are, as far as the host.
        inside = ipaddress.ip_network(f"{nic.lease.address}/{nic.lease.length}", strict=False)
        gateway = nic.lease.dns
        net.run("ip", "route", "add", str(inside), "via", UPLINK_ADDRESS)
        guests = (nic, dev, hub)
        for guest in guests:
            lease = guest.lease
            assert ipaddress.ip_address(lease.address) in inside
            assert (lease.gateway, lease.dns, lease.domain) == ("-", gateway, "host-only.internal")
            assert "default" not in guest.ask("ip route")
            assert page(host, lease.address) == f"{guest.name}\n"
            guest.ask(f"ip route add default via {gateway}")
        assert len({guest.mac for guest in guests}) == 3

        addresses = {guest.lease.address for guest in guests}
        everywhere = {*addresses, gateway, nat.lease.address, WEB_ADDRESS}
        with ThreadPoolExecutor() as threads:
            from_inside = [threads.submit(guest.reached, *everywhere) for guest in guests]
            from_nat = threads.submit(nat.reached, *addresses, WEB_ADDRESS)
            from_internet = threads.submit(reached, net, *addresses, gateway)
        for answers in from_inside:
            assert answers.result() == {*addresses, gateway}
        assert from_nat.result() == {WEB_ADDRESS}
        assert from_internet.result() == {gateway}
        assert nic.get("http://netdev/") == "netdev\n"
