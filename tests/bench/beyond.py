"""TCP of an ordinary user's guest with a server beyond the host, by each way that there is.

It is one guest with a NIC for each way, see bench.throughput for why; each has an address of the
server's for itself. The launcher makes the nat of a realm whose way out is pasta, and starts
another launcher, of another realm where nothing is configured, which becomes QEMU. The server has
the watch: from the connection until it has all, or until the guest, which has all then, closes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import report
from bench.peers import US
from lab.guest import Guest
from lab.netns import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lab.netns import Host, Uplinked
    from lab.user import User

    # The seconds of each transfer, by NIC, that sends and that receives.
    Took = Mapping[str, Mapping[str, list[float]]]

SLIRP: Final = "QEMU's `user` (libslirp)"
STREAM: Final = "passt's socket, `-netdev stream`"
PASTA: Final = 'nat, `uplink_helper = "pasta"`'
AUTO: Final = "nat as it comes (slirp4netns)"
WAYS: Final = (SLIRP, STREAM, PASTA, AUTO)  # by the guest's NICs
SENDS, RECEIVES = "sends", "receives"
MIB: Final = 8

_ADDRESS: Final = "198.51.100.10{}"  # the server's, by the NIC's number
_TAKES: Final = 5000  # ports of the server
_GIVES: Final = 5001
_INNER: Final = "/run/inner"
# Not the subnet of the other realm's nat: the guest is on both.
_CONFIG: Final = """
uplink_helper = "pasta"
[networks.nat]
mode = "nat"
subnet = "10.9.0.0/24"
"""
_SERVER: Final = f"""
import json, socket, threading, time

def serve(port, name, transfer):
    listening = socket.create_server(("", port))
    while True:
        accepted, _ = listening.accept()
        with accepted:
            begun = time.monotonic()
            transfer(accepted)
            took = time.monotonic() - begun
            nic = int(accepted.getsockname()[0][-1])
        print(json.dumps([nic, name, took]), flush=True)

def take(accepted):
    left = {MIB << 20}
    buffer = bytearray(1 << 20)
    while left:
        left -= accepted.recv_into(buffer)
    accepted.sendall(b"\\n")

def give(accepted):
    accepted.sendall(bytes({MIB << 20}))
    accepted.recv(1)

jobs = (({_TAKES}, "{SENDS}", take), ({_GIVES}, "{RECEIVES}", give))
for thread in [threading.Thread(target=serve, args=each) for each in jobs]:
    thread.start()
"""
_DISCARD: Final = "iflag=fullblock of=/dev/null 2>/dev/null"
# No end closes one half of a connection: old pasta stalls there.
_JOB: Final = f"""
printf '#!/bin/sh\\ncat /zero; read -r _\\n' >/sends
printf '#!/bin/sh\\nexec dd bs=64k count={MIB * 16} {_DISCARD}\\n' >/takes
chmod +x /sends /takes
dd if=/dev/zero of=/zero bs=1M count={MIB} 2>/dev/null
for n in 0 1 2 3; do
    dhcp eth$n
    set -- $(ip route show dev eth$n | grep default)
    ip route add {_ADDRESS.format("$n")}/32 via $3 dev eth$n
    ip route del default
done
await_go
turn=0
while [ $turn -le $go ]; do
    for each in 0 1 2 3; do
        n=$(((turn + each) % 4))
        nc {_ADDRESS.format("$n")} {_TAKES} -e /sends
        nc {_ADDRESS.format("$n")} {_GIVES} -e /takes
    done
    turn=$((turn + 1))
done
report all
read -r _
"""


def measure(both: Uplinked, user: User, turns: int) -> dict[str, dict[str, list[float]]]:
    """Return the Mbit/s of each way, a value a turn, for both directions."""
    took: dict[str, dict[str, list[float]]] = {way: {SENDS: [], RECEIVES: []} for way in WAYS}
    with _server(both.net) as server, _guest(user) as guest:
        guest.wait_report("waiting")
        guest.send(str(turns))
        guest.wait_report("all", 60 * turns)
        assert server.stdout is not None
        for _ in range((turns + 1) * len(WAYS) * 2):
            nic, direction, seconds = json.loads(server.stdout.readline())
            took[WAYS[nic]][direction].append((MIB << 23) / 1e6 / seconds)
    # The first turn is to warm up.
    return {way: {each: values[1:] for each, values in of.items()} for way, of in took.items()}


def ratios(found: Took, direction: str, way: str, base: str) -> list[float]:
    """Return how fast a WAY is to BASE in a direction, a value a turn."""
    pairs = zip(found[way][direction], found[base][direction], strict=True)
    return [a / b for a, b in pairs]


def table(found: Took) -> list[str]:
    """Return the table of the ways, each paired turn by turn with the first two."""
    heads = ("Mbit/s", "to `user`", "to passt")
    columns = [f"{each}, {head}" for each in (SENDS, RECEIVES) for head in heads]
    lines = report.table("the guest's network", *columns)
    for way in WAYS:
        cells = []
        for direction in (SENDS, RECEIVES):
            cells.append(f"{median(found[way][direction]):.0f}")
            for base in (SLIRP, STREAM):
                ratio = median(ratios(found, direction, way, base))
                cells.append("1" if way == base else f"{ratio:.2f}")
        lines.append(report.row(way, *cells))
    return lines


@contextlib.contextmanager
def _server(net: Host) -> Iterator[subprocess.Popen[str]]:
    """Have the server on the internet; it prints NIC, direction and seconds of each transfer."""
    addresses = (f"address add {_ADDRESS.format(n)}/32 dev lo\n" for n in range(len(WAYS)))
    net.run("ip", "-batch", "-", input="".join(addresses))
    server = net.popen(sys.executable, "-c", _SERVER, stdout=subprocess.PIPE)
    for port in (_TAKES, _GIVES):
        net.wait_listening("tcp", port)
    try:
        yield server
    finally:
        server.kill()
        server.communicate()


@contextlib.contextmanager
def _guest(user: User) -> Iterator[Guest]:
    """Have the guest, and passt for it."""
    socket, second = f"{user.runtime_folder}/passt.socket", f"{user.runtime_folder}/second"
    nics = [f"virtio-net-pci,netdev=n{n},mac=52:54:00:00:00:1{n}" for n in range(len(WAYS))]
    user.run("mkdir", "-m", "700", second)
    inner = f'XDG_RUNTIME_DIR={second} exec {" ".join(US)} "$@"'
    inner += f" -netdev nat,id=n{WAYS.index(AUTO)} -device {nics[WAYS.index(AUTO)]}\n"
    user.host.write(_INNER, f"#!/bin/sh\n{inner}", mode=0o755)
    user.write("pasta.toml", _CONFIG)
    netdevs = {
        SLIRP: "user",
        STREAM: f"stream,server=off,addr.type=unix,addr.path={socket}",
        PASTA: "nat",
    }
    net = []
    for way, netdev in netdevs.items():
        n = WAYS.index(way)
        net += ["-netdev", f"{netdev},id=n{n}", "-device", nics[n]]
    words = ("passt", "--foreground", "--quiet", "--socket", socket)
    passt = user.popen(*words, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: user.run("test", "-S", socket, check=False).returncode == 0, "passt")
        wrapper = (US[0], "--config", f"{user.home}/pasta.toml", "--", _INNER)
        with Guest(user, wrapper, net, _JOB, name="guest") as guest:
            yield guest
    finally:
        passt.kill()
        passt.wait()
