"""TCP from guest to guest: by an ordinary user's nat, to root's.

Each of the two guests has a NIC on both networks, see bench.throughput for why. Its QEMU is the
user's: root's launcher has its tap made, and becomes the user, whose launcher makes the other.
"""

from __future__ import annotations

import shlex
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.peers import US
from lab.guest import Guest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from lab.user import User

MIB: Final = 16
BLOCK: Final = 5  # transfers by each network that make one figure
_ROOTS: Final = 0  # the guests' NICs; their subnets are 10.9.0.0 and 10.9.1.0
_USERS: Final = 1
_TAKES: Final = 5000  # a port
_BECOME: Final = "/run/become-user"
_NICS: Final = f"""
for n in {_ROOTS} {_USERS}; do ip address add 10.9.$n.%s/24 dev eth$n; ip link set eth$n up; done
"""
_TAKER: Final = f"""{_NICS % 1}
printf '#!/bin/sh\\ncat >/dev/null\\n' >/takes; chmod +x /takes
nc -ll -p {_TAKES} -e /takes &
report ready
read -r _
"""
# Its end of the connection ends when the other has all.
_SENDER: Final = f"""{_NICS % 2}
dd if=/dev/zero of=/zero bs=1M count={MIB} 2>/dev/null
await_go
send() {{
    read -r before _ </proc/uptime
    nc 10.9.$1.1 {_TAKES} </zero >/dev/null
    read -r after _ </proc/uptime
    report "took$1" "$before $after"
}}
turn=0
while [ $turn -le $go ]; do
    if [ $((turn % 2)) = 0 ]; then send 0; send 1; else send 1; send 0; fi
    turn=$((turn + 1))
done
report all
read -r _
"""


class _Root(NamedTuple):
    """Root, where what the tests lend is for the user to read."""

    user: User

    def popen(self, *cmd: str, **kw: Any) -> subprocess.Popen[str]:
        return self.user.host.popen(*cmd, **kw)

    def lend(self, path: Path) -> str:
        return self.user.lend(path)

    def take_back(self, lent: str) -> None:
        self.user.take_back(lent)


def measure(user: User, rounds: int) -> list[float]:
    """Return how fast the user's network is to root's, a value a round."""
    login = ("setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", "--clear-groups", "env", "-i")
    env = (f"{name}={value}" for name, value in user.env.items())
    become = shlex.join((*login, *env, *US))
    with (
        _guest(user, become, "taker", 1, _TAKER) as taker,
        _guest(user, become, "sender", 2, _SENDER) as sender,
    ):
        for guest, said in ((taker, "ready"), (sender, "waiting")):
            guest.wait_report(said)
        sender.send(str(rounds * BLOCK))
        sender.wait_report("all", 60 * rounds)
        by_root, by_user = (_seconds(sender, nic) for nic in (_ROOTS, _USERS))
    blocks = [slice(first, first + BLOCK) for first in range(1, len(by_root), BLOCK)]
    return [median(by_root[each]) / median(by_user[each]) for each in blocks]


def _guest(user: User, become: str, name: str, number: int, job: str) -> Guest:
    """Start a guest with a NIC on root's nat, and one on the user's."""
    nics = [
        f"virtio-net-pci,netdev=n{nic},mac=52:54:00:00:0{nic}:0{number}" for nic in (_ROOTS, _USERS)
    ]
    path = f"{_BECOME}-{number}"
    script = f'exec {become} "$@" -netdev nat,id=n{_USERS} -device {nics[_USERS]}\n'
    user.host.write(path, f"#!/bin/sh\n{script}", mode=0o755)
    net = ("-netdev", f"nat,id=n{_ROOTS}", "-device", nics[_ROOTS])
    return Guest(_Root(user), (*US, path), net, job, name=name)


def _seconds(guest: Guest, nic: int) -> list[float]:
    """Return how long each transfer by a NIC took."""
    took = (line.split() for line in guest.reported(f"took{nic}"))
    return [float(after) - float(before) for before, after in took]
