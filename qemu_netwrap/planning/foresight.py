"""What QEMU is about to stumble over in netdevs that it sets up itself, said before it does.

QEMU's and the kernel's own messages for these name neither the cause nor the remedy. They still
come: the words reach QEMU as they are.
"""

from __future__ import annotations

from qemu_netwrap.core.record import Record
from qemu_netwrap.planning.reading import NO_SCRIPT, SCRIPTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.core.netoption import NetOption

IFF_TAP, IFF_MULTI_QUEUE = 0x2, 0x100  # linux/if_tun.h


class Sight(Record):
    """What was seen of the host for one netdev."""

    uid: int  # who QEMU will be
    privileged: bool  # CAP_NET_ADMIN
    is_there: bool = False  # the interface that ifname= names
    tun_flags: int | None = None  # of that interface; None when it is no tun or tap
    is_macvtap: bool = False
    owner: int = -1  # of that tap; -1 for none
    holder: str = ""  # the process that has that tap
    helper: str = ""  # qemu-bridge-helper, if the user names it
    helper_may: bool = True  # whether it has the privilege it needs
    gains_nothing: bool = False  # a setuid program stays who starts it (no_new_privs)
    acl: str = ""  # what bridge.conf has against it
    bridge: str = ""  # the bridge that the helper is to use, if that is not there
    scripts_missing: tuple[str, ...] = ()
    has_vhost: bool = True
    forbids_programs: bool = False  # -sandbox spawn=deny


def foresee(net: NetOption, seen: Sight) -> Iterator[str]:
    """Yield what will go wrong with a netdev of the user's own, each with its remedy."""
    if net.value("ifname") and seen.is_there:
        yield from _tap(net, seen)
    if seen.helper:
        yield from _helper(seen)
    for script in seen.scripts_missing:
        yield f"script {script} is not there, or cannot be executed; script=no is for none"
    runs = seen.helper or any(net.value(key) not in NO_SCRIPT for key in SCRIPTS)
    if seen.forbids_programs and runs:
        yield "-sandbox spawn=deny forbids scripts and helpers: QEMU will die of it without a word"
    if net.type == "tap" and net.value("vhost") == "on" and not seen.has_vhost:
        yield "vhost=on: /dev/vhost-net cannot be opened: modprobe vhost_net, or leave out vhost=on"


def _tap(net: NetOption, seen: Sight) -> Iterator[str]:
    """Yield what keeps QEMU from taking an interface that is there."""
    name = net.value("ifname")
    many = bool(seen.tun_flags and seen.tun_flags & IFF_MULTI_QUEUE)
    if seen.is_macvtap:
        return
    if not seen.tun_flags or not seen.tun_flags & IFF_TAP:
        yield f"{name} is there, and is no tap: choose another ifname="
    elif seen.holder and not many:
        yield f"{name} is in use by {seen.holder}: choose another ifname=, or leave it out"
    elif many != (net.queues > 1):
        yield (
            f"{name} was made with multi_queue: give it queues=2 or more"
            if many
            else f"{name} was made without multi_queue: leave out queues="
        )
    elif not seen.privileged and seen.owner not in (-1, seen.uid):
        yield (
            f"{name} is of user {seen.owner}: make it for this one:"
            f" sudo ip tuntap add {name} mode tap user {seen.uid}"
        )


def _helper(seen: Sight) -> Iterator[str]:
    """Yield what keeps QEMU's bridge helper from its work."""
    if seen.gains_nothing:
        yield (
            f"{seen.helper} gets no privilege here, setuid or not (no_new_privs, as by --run-as):"
            " leave out helper=, and the tap is made for QEMU"
        )
    elif not seen.helper_may:
        yield (
            f"{seen.helper} is not setuid, so it cannot make a tap: sudo chmod u+s {seen.helper};"
            " or leave out helper= and use sudo qemu-netwrap --run-as"
        )
    if seen.acl:
        yield seen.acl
    if seen.bridge:
        yield f"bridge {seen.bridge} is not there; without helper= it is made"
