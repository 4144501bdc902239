"""A NIC that is passed through: what uses it, and its configuration, saved and restored.

An interface disappears with its driver. Only keepers of runs that pass NICs through load this.
"""

from __future__ import annotations

import contextlib
import errno
import os

from qemu_netwrap import record_text
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, sysctl
from qemu_netwrap.linux.netlink import NLM_F_APPEND, attribute, interface_copy
from qemu_netwrap.linux.netlink import messages as rt
from qemu_netwrap.linux.netlink.interface_copy import InterfaceNetlink
from qemu_netwrap.linux.netlink.links import IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU
from qemu_netwrap.linux.netlink.messages import Message, Route
from qemu_netwrap.linux.polling import wait_until
from qemu_netwrap.model import mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.linux.netlink.links import Link

_TIMEOUT = 10.0  # seconds: for an interface to appear, for udev to name it, for a carrier
_SYS = "/sys/class/net"


def save(ifname: str) -> str:
    """Return the configuration that an interface would lose with its driver, as a line of text."""
    mover = InterfaceNetlink()
    try:
        link = mover.link(ifname)
        if link is None:
            raise HostError(f"interface {ifname} has gone", "it was removed meanwhile; try again")
        had = mover.belongings(link.index)
        fields = {
            "index": str(link.index),
            "mac": mac.unpack(link.mac),
            "mtu": str(link.mtu),
            "up": str(int(link.up)),
            "master": mover.index_name(link.master) if link.master else "",
            "settings": " ".join(_settings(ifname)),
        }
    finally:
        mover.close()
    fixed = tuple(n for n in had.neighbours if n.state & rt.NUD_PERMANENT or not n.state)
    routes = (*had.routes, *(Route(_by_object(route)) for route in had.by_object))
    kept = had.replace(routes=routes, neighbours=fixed)
    return record_text.write(ifname, fields | interface_copy.noted(kept))


def _by_object(route: Route) -> bytes:
    """Return a route by a nexthop object, without a gateway or device of its own.

    The kernel refuses both together (net/ipv4/fib_frontend.c, `rtm_to_fib_config`).
    """
    ways = (rt.RTA_OIF, rt.RTA_GATEWAY, rt.RTA_VIA, rt.RTA_MULTIPATH)
    body = route.body
    return body[: rt.RTMSG.size] + rt.exchanged(body, rt.RTMSG.size, dict.fromkeys(ways))


def restore(ifname: str, saved: str) -> None:
    """Restore what `save` returned. Raises `HostError` if the old name is taken."""
    name, fields = record_text.read(saved)
    mover = InterfaceNetlink()
    try:
        found = mover.link(ifname)
        if found is None:
            raise HostError(f"interface {ifname} has gone", "run qemu-netwrap gc once it is back")
        index = found.index
        _await_udev(index)
        # By its index: udev may have renamed it.
        if mover.index_name(index) != name:
            _rename(mover, index, name)
        _set_link(mover, found, fields)
        _put_settings(name, fields["settings"].split())
        link = mover.link_at(index)
        if link is not None:
            _give(mover, link, fields)
    finally:
        mover.close()


def _give(mover: InterfaceNetlink, link: Link, fields: dict[str, str]) -> None:
    """Restore addresses, routes and neighbours of an interface, which has a new index."""
    had, has = interface_copy.of_noted(fields), mover.belongings(link.index)
    mover.batch(interface_copy.addresses_given(had, has, link, link))
    if not link.up:
        return  # it was down: the kernel allows no routes through it
    known = {route.key for route in has.every_route}
    before = int(fields["index"])
    routes = [route for route in had.routes if route.key not in known]
    mover.batch(interface_copy.excused(had, [n.moved(link.index) for n in had.nexthops]))
    moved = [route.moved(before, link.index, NLM_F_APPEND) for route in routes]
    mover.batch(interface_copy.excused(had, moved))
    mover.batch(interface_copy.neighbours_told(had, has, link))


def _set_link(mover: InterfaceNetlink, link: Link, fields: dict[str, str]) -> None:
    """Restore an interface's MTU, MAC and bridge, and bring it up if it was up."""
    mover.batch([_set(link.index, attribute(IFLA_MTU, rt.U32.pack(int(fields["mtu"]))))])
    if fields["mac"] != mac.unpack(link.mac):
        _set_mac(mover, link, fields["mac"])
    messages = []
    if fields["master"]:
        master = mover.link(fields["master"])
        if master is None:
            raise HostError(
                f"{fields['master']}, which the interface was a port of, has gone",
                "make it anew, then run qemu-netwrap gc",
            )
        messages.append(_set(link.index, attribute(rt.IFLA_MASTER, rt.U32.pack(master.index))))
    if fields["up"] == "1":
        messages.append(_up(link.index, up=True))
    mover.batch(messages)


def _set_mac(mover: InterfaceNetlink, link: Link, wanted: str) -> None:
    """Restore an interface's MAC. Raises `HostError` if that fails.

    The driver of a virtual function may refuse it (EADDRNOTAVAIL: igbvf, if the physical function
    has set it), and set it by itself a moment later.
    """
    why = ""

    def has_it() -> bool:
        nonlocal why
        now = mover.link_at(link.index)
        if now is None or mac.unpack(now.mac) == wanted:
            return True
        try:
            mover.batch([_set(link.index, attribute(IFLA_ADDRESS, mac.pack(wanted)))])
        except OSError as error:
            why = error.strerror or str(error)
            return False
        return True

    if not wait_until(has_it, _TIMEOUT):
        raise HostError(
            f"interface {link.name} cannot have its MAC {wanted} back: {why}",
            "for a virtual function: ip link set PF vf NUMBER mac MAC; then qemu-netwrap gc",
        )


def _rename(mover: InterfaceNetlink, index: int, name: str) -> None:
    """Restore an interface's name."""
    raw = name.encode("utf-8", "surrogateescape") + b"\0"
    try:
        mover.batch([_up(index, up=False), _set(index, attribute(IFLA_IFNAME, raw))])
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        raise HostError(
            f"interface {name} cannot have its name back: another has it",
            f"rename that, then run qemu-netwrap gc; see ip link show {name}",
        ) from error


def _set(index: int, attributes: bytes) -> Message:
    """Return a message that sets attributes of an interface."""
    return Message(rt.RTM_SETLINK, 0, rt.IFINFO.pack(0, 0, index, 0, 0) + attributes)


def _up(index: int, *, up: bool) -> Message:
    """Return a message that brings an interface up or down."""
    return Message(rt.RTM_SETLINK, 0, rt.IFINFO.pack(0, 0, index, int(up), rt.IFF_UP))


def is_up(ifname: str) -> bool:
    """Whether an interface exists and is up."""
    with contextlib.closing(InterfaceNetlink()) as mover:
        link = mover.link(ifname)
        return link is not None and link.up


def set_up(ifname: str, *, up: bool) -> None:
    """Bring an interface up or down. Raises `OSError`."""
    with contextlib.closing(InterfaceNetlink()) as mover:
        link = mover.link(ifname)
        if link is not None:
            mover.batch([_up(link.index, up=up)])


def is_idle(ifname: str) -> bool:
    """Whether an interface seems unused: it is down, on no bridge, without addresses."""
    with contextlib.closing(InterfaceNetlink()) as mover:
        link = mover.link(ifname)
        if link is None or link.up or link.master:
            return False
        return not mover.belongings(link.index).addresses


def given(ifname: str) -> tuple[str, ...]:
    """Return the addresses that were configured on an interface, as ip(8) shows them.

    Without those that the kernel adds by itself: link-local ones, and those by SLAAC.
    """
    with contextlib.closing(InterfaceNetlink()) as mover:
        link = mover.link(ifname)
        found = mover.belongings(link.index).addresses if link is not None else ()
        return tuple(each.text for each in found if not (each.is_link_local or each.is_announced))


def with_address(address: str) -> str:
    """Return the interface that has an address; empty if none does."""
    with contextlib.closing(InterfaceNetlink()) as mover:
        found = (each for each in mover.addresses() if each.text.partition("/")[0] == address)
        first = next(found, None)
        return mover.index_name(first.index) if first is not None else ""


def uppers(ifname: str) -> set[str]:
    """Return the names of an interface and of all above it: its bridge, bond, VLANs."""
    found: set[str] = set()
    wanted = [ifname]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += _on(name)
    return found


def dependents(ifname: str) -> tuple[str, ...]:
    """Return the interfaces that are removed with this one: its VLANs and macvlans."""
    master = os.path.basename(os.path.realpath(f"{_SYS}/{ifname}/master"))
    return tuple(name for name in _on(ifname) if name != master)


def _on(ifname: str) -> list[str]:
    """Return the interfaces directly above one."""
    links = files.listdir(f"{_SYS}/{ifname}")
    return [link.removeprefix("upper_") for link in links if link.startswith("upper_")]


def await_carrier(ifname: str) -> None:
    """Wait until an interface has a carrier, for at most `_TIMEOUT`."""
    wait_until(lambda: files.read(f"{_SYS}/{ifname}/carrier").strip() == "1", _TIMEOUT)


def _settings(ifname: str) -> Iterator[str]:
    """Yield the sysctls (net/*/conf) in which an interface differs from a new one, as text."""
    for family, key, value in sysctl.choices(ifname):
        if value != sysctl.read(family, "default", key):
            yield f"{family}/{key}={value}"


def _put_settings(ifname: str, saved: list[str]) -> None:
    """Restore sysctls that `_settings` yielded."""
    for entry in saved:
        path, _, value = entry.partition("=")
        family, _, key = path.partition("/")
        sysctl.give(family, ifname, key, value)


def wait_interfaces(find: Callable[[], tuple[str, ...]], count: int) -> tuple[str, ...]:
    """Wait until FIND returns COUNT interfaces, for at most `_TIMEOUT`; return what it returns."""
    wait_until(lambda: len(find()) >= count, _TIMEOUT)
    return find()


def _await_udev(index: int) -> None:
    """Wait until udev, if it runs, has processed a new interface, which it may rename."""
    if os.path.exists("/run/udev/control"):
        wait_until(lambda: os.path.exists(f"/run/udev/data/n{index}"), _TIMEOUT)
