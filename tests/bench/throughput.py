"""TCP between a guest and the host, by the guest's two NICs: one's tap is ours, the other's is not.

It is one guest, so that what two QEMUs of the same words differ by plays no part; and many short
transfers in turn, since the same one takes an emulated guest from 0.6 to 1.7 times its usual time.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.peers import BRIDGE, US
from lab.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.netns import Host

BY_HAND: Final = 0  # the guest's NICs; their subnets are 10.9.0.0 and 10.9.1.0
OURS: Final = 1
MIB: Final = 16
BLOCK: Final = 20  # transfers by each NIC that make one figure
_TAKES: Final = 5000  # ports of the guest
_SENDS: Final = 5001
_FD: Final = 64
# IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, by TUNSETIFF: the tap that is there.
_HOLD: Final = f"""
import fcntl, os, struct, sys
os.dup2(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK), {_FD})
fcntl.ioctl({_FD}, 0x400454CA, struct.pack("16sH22x", b"tcp0", 0x5002))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_JOB: Final = f"""
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore  # both are on one bridge
for n in {BY_HAND} {OURS}; do
    ip address add 10.9.$n.2/24 dev eth$n; ip link set eth$n up
done
dd if=/dev/zero of=/zero bs=1M count={MIB} 2>/dev/null
printf '#!/bin/sh\\nexec cat >/dev/null\\n' >/takes; chmod +x /takes
nc -ll -p {_TAKES} -e /takes &
nc -ll -p {_SENDS} -e cat /zero &
report ready
read -r _
"""


def measure(host: Host, rounds: int) -> dict[str, list[float]]:
    """Return the ratios of ours to the other, a value a round, for both directions."""
    host.run("ip", "address", "add", f"10.9.{OURS}.1/24", "dev", BRIDGE)
    host.run("ip", "tuntap", "add", "dev", "tcp0", "mode", "tap", "vnet_hdr")
    host.run("ip", "link", "set", "tcp0", "master", BRIDGE, "up")
    net: list[str] = []
    for nic, tap in ((BY_HAND, f"tap,fd={_FD}"), (OURS, f"tap,br={BRIDGE}")):
        device = f"virtio-net-pci,netdev=n{nic},mac=52:54:00:00:00:0{nic + 2}"
        net += ["-netdev", f"{tap},id=n{nic}", "-device", device]
    with Guest(host, (sys.executable, "-c", _HOLD, *US), net, _JOB) as guest:
        guest.wait_report("ready")
        env = {"PYTHONPATH": str(Path(__file__).parents[1])}
        end = host.run(sys.executable, __file__, str(rounds), timeout=30 * rounds, env=env)
        found = dict(json.loads(end.stdout))
    host.run("ip", "link", "del", "tcp0")
    return found


def _ratios(transfer: Callable[[int], float], rounds: int) -> list[float]:
    """Return the ratio of the medians of each round's transfers, of which each comes in turn."""
    found = []
    for _ in range(rounds):
        took: dict[int, list[float]] = {BY_HAND: [], OURS: []}
        for number in range(BLOCK):
            first = number % 2
            for nic in (first, 1 - first):
                took[nic].append(transfer(nic))
        found.append(statistics.median(took[BY_HAND]) / statistics.median(took[OURS]))
    return found


def _take(nic: int) -> float:
    """Have the guest send; return the seconds."""
    buffer = bytearray(1 << 20)
    begun = time.monotonic()
    with socket.create_connection((f"10.9.{nic}.2", _SENDS), 60) as connection:
        count = 0
        while more := connection.recv_into(buffer):
            count += more
    assert count == MIB << 20
    return time.monotonic() - begun


def _send(nic: int) -> float:
    """Send to the guest; return the seconds until it has read it all."""
    data = bytes(1 << 20)
    begun = time.monotonic()
    with socket.create_connection((f"10.9.{nic}.2", _TAKES), 60) as connection:
        for _ in range(MIB):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert not connection.recv(1)
    return time.monotonic() - begun


if __name__ == "__main__":  # the host's end
    count = int(sys.argv[1])
    for nic in (BY_HAND, OURS):
        _take(nic), _send(nic)
    ratios = {"guest to host": _ratios(_take, count), "host to guest": _ratios(_send, count)}
    json.dump(ratios, sys.stdout)
