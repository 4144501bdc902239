"""Warnings about taps, helpers and scripts of netdevs that QEMU sets up itself.

QEMU's and the kernel's own messages for these name neither the cause nor the remedy. They still
appear, since QEMU gets these netdevs unchanged.
"""

from __future__ import annotations

from qemu_netwrap.linux.devices import TUN, VHOST
from qemu_netwrap.qemu.network_options import NO_SCRIPT
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.qemu.netdev_options import NetOption

IFUP = "/etc/qemu-ifup"  # DEFAULT_NETWORK_SCRIPT, QEMU's include/net/net.h
IFF_TAP, IFF_MULTI_QUEUE = 0x2, 0x100  # linux/if_tun.h


class TapFacts(Record):
    """Facts about the host for one netdev."""

    uid: int  # the user that QEMU will run as
    privileged: bool  # CAP_NET_ADMIN
    is_there: bool = False  # the interface that ifname= names
    tun_flags: int | None = None  # of that interface; None when it is no tun or tap
    is_macvtap: bool = False
    owner: int = -1  # of that tap; -1 for none
    holder: str = ""  # the process that has that tap open
    helper: str = ""  # qemu-bridge-helper, if the user names it
    helper_may: bool = True  # whether it has the privilege it needs
    gains_nothing: bool = False  # a setuid program gets no other uid (no_new_privs)
    acl: str = ""  # why bridge.conf denies the bridge
    bridge: str = ""  # the bridge that the helper is to use, if it does not exist
    scripts_missing: tuple[str, ...] = ()
    no_tun: str = ""  # why taps cannot be opened, with the remedy
    no_vhost: str = ""  # the same of vhost=on
    opens_macvtap: bool = True  # whether this QEMU opens a macvtap by its name
    forbids_programs: bool = False  # -sandbox spawn=deny


def warnings(net: NetOption, seen: TapFacts) -> Iterator[str]:
    """Yield a warning, with its remedy, for each fault of a netdev that QEMU sets up."""
    own = opens_tun(net)
    if own and seen.no_tun:
        yield f"{TUN}: {seen.no_tun}"
    elif own and seen.is_there:
        yield from _tap(net, seen)
    elif own and not seen.privileged:
        yield _not_made(net, seen)
    if seen.helper:
        yield from _helper(seen)
    for script in seen.scripts_missing:
        yield f"script {script} is not there, or cannot be executed; script=no is for none"
    if seen.forbids_programs and (seen.helper or scripts(net)):
        yield "-sandbox spawn=deny forbids scripts and helpers: QEMU will end without a message"
    if opens_vhost(net) and seen.no_vhost:
        yield f"vhost=on: {VHOST} cannot be opened: leave out vhost=on; {seen.no_vhost}"
    if net.type == "tap" and net.has("br") and not net.has("helper"):
        yield (
            "QEMU ignores br= without helper=: put the tap on the bridge yourself"
            f" (ip link set {net.value('ifname') or 'TAP'} master {net.value('br')})"
        )


def opens_tun(net: NetOption) -> bool:
    """Whether QEMU opens /dev/net/tun for a netdev, by itself (net/tap.c, `net_init_tap`)."""
    return net.type == "tap" and not any(net.has(key) for key in ("fd", "fds", "helper"))


def opens_vhost(net: NetOption) -> bool:
    """Whether QEMU opens /dev/vhost-net for a netdev (net/tap.c, `net_init_tap_one`)."""
    if net.type != "tap" or net.has("vhostfd") or net.has("vhostfds"):
        return False
    return net.flag("vhost", default=net.flag("vhostforce", default=False))


def scripts(net: NetOption) -> tuple[str, ...]:
    """Return the scripts that QEMU runs for a netdev: without script= its default one."""
    if not opens_tun(net):
        return ()
    up = net.value("script") if net.has("script") else IFUP
    down = net.value("downscript")
    return tuple(each for each in (up, down) if each not in NO_SCRIPT)


def _not_made(net: NetOption, seen: TapFacts) -> str:
    """Return the warning that this user cannot create a tap."""
    name = net.value("ifname") or "tap0"
    return (
        f"only root makes a tap: sudo ip tuntap add {name} mode tap user {seen.uid}, and give it"
        f" ifname={name}"
    )


def _tap(net: NetOption, seen: TapFacts) -> Iterator[str]:
    """Yield why QEMU cannot open an existing interface."""
    name = net.value("ifname")
    many = bool(seen.tun_flags and seen.tun_flags & IFF_MULTI_QUEUE)
    if seen.is_macvtap:
        if not seen.opens_macvtap:
            yield (
                f"{name} is a macvtap, which QEMU opens by its name since 10.0: give it by"
                f" descriptor: fd=3 3<>/dev/tap$(cat /sys/class/net/{name}/ifindex)"
            )
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


def _helper(seen: TapFacts) -> Iterator[str]:
    """Yield why QEMU's bridge helper will fail."""
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
