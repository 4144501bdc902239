"""An ordinary user's launches, each paired with root's on the same machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench import rounds
from bench.clock import BARE, Vm
from bench.peers import US
from lab.user import User

if TYPE_CHECKING:
    from bench.peers import Start
    from bench.rounds import Figures
    from lab.netns import Host

ROOT: Final = "qemu-netwrap, root"
USER: Final = "qemu-netwrap, an ordinary user"
_NAT: Final = (*US, *BARE, "-netdev", "nat,id=n0")
# What differs from a user's: the folders of a root login are searched first.
_LOGIN: Final = {
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


def measure(host: Host, count: int) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """Return the figures where both have nat up already, and where each launch makes it.

    Root gets the environment of a login too, so that both search as many folders.
    """
    user = User(host)
    env = {name: value for name, value in user.env.items() if name != "XDG_RUNTIME_DIR"} | _LOGIN
    starts: dict[str, Start] = {
        ROOT: lambda host: Vm(host, _NAT, env=env),
        USER: lambda host: Vm(host, _NAT, user=user, env=user.env),
    }
    with rounds.nat_up(host), rounds.nat_up(host, user):
        is_up = rounds.measure(host, starts, count)
    return is_up, rounds.measure(host, starts, count)
