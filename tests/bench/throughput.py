"""TCP between a guest and the host: the same guest on a tap of ours and on one made by hand."""

from __future__ import annotations

import http.client
import sys
import time
from typing import TYPE_CHECKING, Final

from bench.peers import BRIDGE, US
from lab.guest import Guest

if TYPE_CHECKING:
    from lab.netns import Host

MIB: Final = 32
TIMES: Final = 4
_PAGE: Final = f"dd if=/dev/zero of=$www/zero bs=1M count={MIB} 2>/dev/null"
_JOB: Final = f"""
ip address add $address/24 dev eth0; ip link set eth0 up
www=/www; mkdir $www; {_PAGE}; httpd -h $www
report ready
count=0
while read -r go; do
    for each in $(seq {TIMES}); do wget -q -O /dev/null http://10.9.0.1/zero; done
    count=$((count + 1)); report taken$count $?
done
"""
_SERVE: Final = f"www=/run/www; mkdir $www; {_PAGE}; busybox httpd -h $www"


class End(Guest):
    """A guest that serves a large page, and gets the host's when told."""

    def __init__(self, host: Host, wrapper: tuple[str, ...], netdev: str, address: str) -> None:
        """Start it behind WRAPPER, with NETDEV."""
        self._host, self._address, self._count = host, address, 0
        device = f"virtio-net-pci,netdev=n0,mac={_mac(address)}"
        net = ("-netdev", f"{netdev},id=n0", "-device", device)
        super().__init__(host, wrapper, net, f"address={address}\n{_JOB}", name=address)

    def sends(self) -> float:
        """Return the Gbit/s from guest to host."""
        return float(self._host.run(sys.executable, __file__, self._address).stdout)

    def takes(self) -> float:
        """Return the Gbit/s from host to guest."""
        begun = time.monotonic()
        self._count += 1
        self.send()
        assert self.wait_report(f"taken{self._count}") == "0"
        return _rate(begun)


def _rate(begun: float) -> float:
    """Return the Gbit/s since BEGUN."""
    return TIMES * MIB * (8 << 20) / (time.monotonic() - begun) / 1e9


def _mac(address: str) -> str:
    """Return a MAC for an address."""
    return f"52:54:00:00:00:{int(address.rpartition('.')[2]):02x}"


def measure(host: Host, rounds: int) -> dict[str, list[float]]:
    """Return the ratios of ours to the other, a value a round, for both directions."""
    host.run("sh", "-c", _SERVE)
    host.run("ip", "tuntap", "add", "dev", "tcp0", "mode", "tap", "vnet_hdr")
    host.run("ip", "link", "set", "tcp0", "master", BRIDGE, "up")
    found: dict[str, list[float]] = {"guest to host": [], "host to guest": []}
    by_hand = "tap,ifname=tcp0,script=no,downscript=no"
    with End(host, (), by_hand, "10.9.0.2") as bare, End(host, US, "tap,br=br0", "10.9.0.3") as us:
        for end in (bare, us):
            end.wait_report("ready")
            end.sends()
            end.takes()
        for _ in range(rounds):
            # There and back, so that a drift of the machine's speed is no difference.
            first, ours, again = bare.sends(), us.sends(), bare.sends()
            found["guest to host"].append(ours * 2 / (first + again))
            first, ours, again = bare.takes(), us.takes(), bare.takes()
            found["host to guest"].append(ours * 2 / (first + again))
    host.run("ip", "link", "del", "tcp0")
    return found


def _get(address: str) -> float:
    """Get a guest's page some times; return the Gbit/s."""
    begun = time.monotonic()
    for _ in range(TIMES):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("GET", "/zero")
        assert len(connection.getresponse().read()) == MIB << 20
        connection.close()
    return _rate(begun)


if __name__ == "__main__":
    print(_get(sys.argv[1]))  # noqa: T201  the host's end: it talks to who started it
