"""The hand-made netlink requests against pyroute2, in a namespace: what one makes, the other reads.

Each test takes away what it made: the leak detector watches here as everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from qemu_netwrap.linux import ipv6_facts
from qemu_netwrap.linux.netlink import NLM_F_DUMP
from qemu_netwrap.linux.netlink import links as rtnetlink
from qemu_netwrap.linux.netlink.links import RTM_GETLINK, RTM_NEWLINK, Link, Rtnl, name_of
from qemu_netwrap.model.host import Route
from qemu_netwrap.model.ipv4 import Subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

MAC = b"\x52\x54\x00\x01\x02\x03"
Netlink = Any  # pyroute2 is untyped
CLONE_NEWNET = 0x40000000
UNICAST, LOCAL_TABLE = 1, 255
ANY = str(Subnet(0, 0)).partition("/")[0]


def enter(path: str) -> None:
    """Move this thread to a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(fd)


@pytest.fixture
def inside(host: Host) -> Iterator[Host]:
    """Move this test to a machine's network."""
    home = f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net"
    keep = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(f"/proc/{host.pid}/ns/net")
        yield host
    finally:
        enter(f"/proc/self/fd/{keep}")
        os.close(keep)


@pytest.fixture
def rtnl(inside: Host) -> Iterator[Rtnl]:
    with contextlib.closing(Rtnl()) as made:
        yield made


@pytest.fixture
def ip(inside: Host) -> Iterator[Netlink]:
    with IPRoute() as made:
        yield made


def seen(ip: Netlink, name: str) -> Netlink:
    """Return a link as pyroute2 reads it."""
    return next(each for each in ip.get_links() if each.get_attr("IFLA_IFNAME") == name)


def index_of(rtnl: Rtnl, name: str) -> int:
    link = rtnl.link(name)
    assert link is not None
    return link.index


def make(ip: Netlink, name: str, kind: str = "bridge", **more: object) -> int:
    """Make a link with pyroute2, up, without IPv6; return its index."""
    ip.link("add", ifname=name, kind=kind, **more)
    index: int = ip.link_lookup(ifname=name)[0]
    ip.link("set", index=index, state="up")
    return index


def as_link(link: Netlink) -> Link:
    """Return what pyroute2 reads as what we read."""
    info = link.get_attr("IFLA_LINKINFO")
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    return Link(
        link["index"],
        link.get_attr("IFLA_IFNAME"),
        bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", "")),
        link.get_attr("IFLA_MTU"),
        (info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        link.get_attr("IFLA_MASTER") or 0,
        bool(link["flags"] & 1),
        bool(link.get_attr("IFLA_CARRIER")),
        bool(port.get_attr("IFLA_BRPORT_ISOLATED") if port else 0),
    )


def as_routes(ip: Netlink) -> list[tuple[str, str, int]]:
    """Return the unicast routes that pyroute2 reads, one for each next hop, sorted."""
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    found = []
    for route in ip.get_routes(family=2):
        table = route.get_attr("RTA_TABLE") or route["table"]
        if route["type"] == UNICAST and table != LOCAL_TABLE:
            where = f"{route.get_attr('RTA_DST') or ANY}/{route['dst_len']}"
            hops = route.get_attr("RTA_MULTIPATH")
            devices = [h["oif"] for h in hops] if hops else [route.get_attr("RTA_OIF")]
            found += [(where, names[device], table) for device in devices]
    return sorted(found)


def plain(routes: list[Route]) -> list[tuple[str, str, int]]:
    return sorted((str(route.subnet), route.device, route.table) for route in routes)


@contextlib.contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r"\S") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


@pytest.mark.parametrize(
    ("stp", "forward_delay", "hello_time"),
    [(False, 0, -1), (False, -1, 7), (True, 2, 1), (True, 30, 10), (True, -1, -1)],
)
def test_bridge(rtnl: Rtnl, ip: Netlink, stp: bool, forward_delay: int, hello_time: int) -> None:
    rtnl.add_bridge(
        "br0", MAC, stp=stp, forward_delay=forward_delay, hello_time=hello_time, snooping=not stp
    )
    link = seen(ip, "br0")
    data = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert link.get_attr("IFLA_ADDRESS") == MAC.hex(":")
    assert link["flags"] & 1
    assert data.get_attr("IFLA_BR_STP_STATE") == int(stp)
    assert data.get_attr("IFLA_BR_FORWARD_DELAY") == (
        1500 if forward_delay < 0 else forward_delay * 100
    )
    assert data.get_attr("IFLA_BR_HELLO_TIME") == (200 if hello_time < 0 else hello_time * 100)
    assert data.get_attr("IFLA_BR_MCAST_SNOOPING") == int(not stp)
    made = rtnl.link("br0")
    assert made is not None
    assert made == as_link(link) == rtnl.link_at(link["index"])
    assert made == Link(link["index"], "br0", MAC, 1500, "bridge", 0, up=True, carrier=made.carrier)
    rtnl.delete_link(link["index"])
    assert ip.link_lookup(ifname="br0") == []
    assert rtnl.link("br0") is None


@pytest.mark.parametrize("length", [8, 16, 19, 24, 29, 30])
def test_address(rtnl: Rtnl, ip: Netlink, length: int) -> None:
    index = make(ip, "br0")
    rtnl.add_address(index, bytes((10, 77, 33, 1)), length)
    ours = [a for a in ip.get_addr(family=2) if a["index"] == index]
    ip.addr("delete", index=index, address="10.77.33.1", prefixlen=length)
    # As `ip address add … broadcast +` would have it.
    host_bits = (1 << 32 - length) - 1
    broadcast = int.from_bytes(bytes((10, 77, 33, 1)), "big") | host_bits
    assert [
        (a["prefixlen"], a["scope"], a.get_attr("IFA_LOCAL"), a.get_attr("IFA_ADDRESS"))
        for a in ours
    ] == [(length, 0, "10.77.33.1", "10.77.33.1")]
    assert ours[0].get_attr("IFA_BROADCAST") == ".".join(map(str, broadcast.to_bytes(4, "big")))
    ip.addr("add", index=index, address="10.77.33.2", prefixlen=length)
    rtnl.delete_address(index, bytes((10, 77, 33, 2)), length)
    assert [a for a in ip.get_addr(family=2) if a["index"] == index] == []
    rtnl.delete_link(index)


@pytest.mark.parametrize("mtu", [1500, 1400, 9000])
def test_plug(rtnl: Rtnl, ip: Netlink, mtu: int) -> None:
    bridge = make(ip, "br0", mtu=mtu)
    ip.link("add", ifname="tap0", kind="tuntap", mode="tap")
    tap, br = rtnl.link("tap0"), rtnl.link("br0")
    assert tap is not None
    assert br is not None
    rtnl.plug(tap, br, MAC)
    after = seen(ip, "tap0")
    plugged = Link(tap.index, "tap0", MAC, mtu, "tun", bridge, up=True)
    assert rtnl.link("tap0") == as_link(after) == plugged
    assert after["flags"] & 1
    assert seen(ip, "br0").get_attr("IFLA_MTU") == mtu
    assert [port.name for port in rtnl.ports(bridge)] == ["tap0"]
    for isolated in (True, False):
        rtnl.isolate(tap.index, isolated=isolated)
        now = plugged.replace(isolated=isolated)
        assert rtnl.link("tap0") == as_link(seen(ip, "tap0")) == now
    rtnl.unplug(tap, 0, tap.mac, tap.mtu, up=tap.up)
    assert rtnl.link("tap0") == tap
    rtnl.delete_link(tap.index)
    rtnl.delete_link(bridge)


def test_ports(rtnl: Rtnl, ip: Netlink) -> None:
    """Those of one bridge, and of no other; a bridge with many too."""
    bridges = [make(ip, f"br{number}") for number in range(3)]
    for number in range(60):
        make(ip, f"one{number}", "veth", peer={"ifname": f"two{number}"})
        ends = (index_of(rtnl, f"one{number}"), index_of(rtnl, f"two{number}"))
        for end, bridge in zip(ends, bridges, strict=False):
            ip.link("set", index=end, master=bridge)
    for bridge in bridges:
        theirs = [link.get_attr("IFLA_IFNAME") for link in ip.get_links(master=bridge)]
        assert sorted(port.name for port in rtnl.ports(bridge)) == sorted(theirs)
        assert len(theirs) == (0 if bridge == bridges[-1] else 60)
    for number in range(60):
        rtnl.delete_link(index_of(rtnl, f"one{number}"))
    for bridge in bridges:
        rtnl.delete_link(bridge)


def test_links_of_many_kinds(rtnl: Rtnl, ip: Netlink, inside: Host) -> None:
    bridge = make(ip, "br0")
    make(ip, "veth0", "veth", peer={"ifname": "veth1"}, mtu=1234)
    ip.link("set", index=index_of(rtnl, "veth1"), master=bridge)
    make(ip, "a.b-c_d+15bytes", "tuntap", mode="tap")
    inside.run("ip", "tuntap", "add", "tun\u00e9", "mode", "tun")  # without a MAC
    links = ip.get_links()
    assert len(links) == 6
    for link in links:
        name = link.get_attr("IFLA_IFNAME")
        assert rtnl.link(name) == as_link(link)
        assert rtnl.index_name(link["index"]) == name
    assert rtnl.link("lo") == Link(1, "lo", bytes(6), 65536, "", 0, up=True, carrier=True)
    for name in ("veth0", "a.b-c_d+15bytes", "tun\u00e9", "br0"):
        rtnl.delete_link(index_of(rtnl, name))


def test_link_that_is_not_there(rtnl: Rtnl) -> None:
    assert rtnl.link("none0") is None
    assert rtnl.index_name(4711) == ""
    with refused(errno.ENODEV):
        rtnl.delete_link(4711)
    assert rtnl.ports(4711) == []


def test_bridge_refused(rtnl: Rtnl, ip: Netlink) -> None:
    index = make(ip, "br0")
    defaults: dict[str, Any] = {"stp": False, "forward_delay": 0, "hello_time": -1}
    with refused(errno.EEXIST):
        rtnl.add_bridge("br0", MAC, **defaults)
    with refused(errno.EADDRNOTAVAIL):
        rtnl.add_bridge("br1", b"\x01" + MAC[1:], **defaults)  # a multicast address
    with refused(errno.EINVAL):
        rtnl.add_bridge("br/1", MAC, **defaults)
    rtnl.delete_link(index)
    with refused(errno.ENODEV):
        rtnl.delete_link(index)


def test_address_refused(rtnl: Rtnl, ip: Netlink) -> None:
    index = make(ip, "br0")
    address = bytes((10, 0, 0, 1))
    rtnl.add_address(index, address, 24)
    with refused(errno.EEXIST):
        rtnl.add_address(index, address, 24)
    with refused(errno.ENODEV):
        rtnl.add_address(4711, address, 24)
    rtnl.delete_address(index, address, 24)
    with refused(errno.EADDRNOTAVAIL):
        rtnl.delete_address(index, address, 24)
    with refused(errno.ENODEV):
        rtnl.delete_address(4711, address, 24)
    rtnl.delete_link(index)


def test_plug_refused(rtnl: Rtnl, ip: Netlink) -> None:
    bridge = make(ip, "br0")
    tap = make(ip, "tap0", "tuntap", mode="tap")
    a, b = rtnl.link("tap0"), rtnl.link("br0")
    assert a is not None
    assert b is not None
    with refused(errno.ENODEV):
        rtnl.plug(a.replace(index=4711), b, MAC)
    with refused(errno.EINVAL):
        rtnl.plug(a, b.replace(index=4711), MAC)
    with refused(errno.EOPNOTSUPP):
        rtnl.plug(a, b.replace(index=1), MAC)  # lo is no bridge
    with refused(errno.ELOOP):
        rtnl.plug(b, b, MAC)
    # The socket is as good as before.
    rtnl.plug(a, b, MAC)
    assert [port.name for port in rtnl.ports(bridge)] == ["tap0"]
    rtnl.delete_link(tap)
    rtnl.delete_link(bridge)


def test_without_the_privilege(inside: Host) -> None:
    script = (
        "from qemu_netwrap.linux.netlink.links import Rtnl\n"
        "print(Rtnl().link('lo').mtu)\n"
        "try: Rtnl().add_bridge('br0', bytes(6), stp=False, forward_delay=0, hello_time=-1)\n"
        "except OSError as error: print(error.errno, error)\n"
    )
    plain_user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    said = inside.run(*plain_user, sys.executable, "-c", script, cwd="/").stdout
    assert said == "65536\n1 [Errno 1] Operation not permitted\n"


ROUTES = """
route add default via 10.1.0.254
route add default via 10.2.0.254 metric 100
route add 172.16.0.0/12 via 10.1.0.254 table 100
route add 192.168.3.0/24 dev br1 table 4711
route add 192.168.4.4/32 dev br1 table 4294967294
route add 10.3.0.0/16 nexthop via 10.1.0.9 weight 2 nexthop via 10.2.0.9
route add blackhole 10.66.0.0/16 table 7
route add unreachable 10.66.0.0/16 table 8
route add prohibit 10.66.0.0/16
route add throw 10.66.0.0/16 table 9
"""
NO_ROUTES = """
route del blackhole 10.66.0.0/16 table 7
route del unreachable 10.66.0.0/16 table 8
route del prohibit 10.66.0.0/16
route del throw 10.66.0.0/16 table 9
"""


def test_routes_in_tables(rtnl: Rtnl, ip: Netlink, inside: Host) -> None:
    index = make(ip, "br0")
    other = make(ip, "br1")
    ip.addr("add", index=index, address="10.1.0.1", prefixlen=24)
    ip.addr("add", index=other, address="10.2.0.1", prefixlen=24)
    inside.run("ip", "-batch", "-", input=ROUTES)
    found = rtnl.routes()
    assert plain(found) == as_routes(ip)
    assert plain(found) == [
        ("0.0.0.0/0", "br0", 254),
        ("0.0.0.0/0", "br1", 254),
        ("10.1.0.0/24", "br0", 254),
        ("10.2.0.0/24", "br1", 254),
        ("10.3.0.0/16", "br0", 254),
        ("10.3.0.0/16", "br1", 254),
        ("172.16.0.0/12", "br0", 100),
        ("192.168.3.0/24", "br1", 4711),
        ("192.168.4.4/32", "br1", 0xFFFFFFFE),
    ]
    assert Route(Subnet.parse("172.16.0.0/12"), "br0", 100) in found
    inside.run("ip", "-batch", "-", input=NO_ROUTES)
    rtnl.delete_link(index)
    rtnl.delete_link(other)
    assert rtnl.routes() == []


def test_a_device_that_goes_while_its_routes_are_read(
    rtnl: Rtnl, inside: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(index: int) -> str:
        inside.run("ip", "link", "delete", "passing", check=False)
        return name_of(index)

    with contextlib.closing(ipv6_facts.Rtnl6()) as rtnl6:
        for module, routes, addresses in (
            (rtnetlink, rtnl.routes, ("192.0.2.1/24", "198.51.100.1/24")),
            (ipv6_facts, rtnl6.routes, ("2001:db8:1::1/64", "2001:db8:2::1/64")),
        ):
            monkeypatch.setattr(module, "name_of", late)
            for device, address in zip(("passing", "staying"), addresses, strict=True):
                inside.run("ip", "link", "add", device, "type", "bridge")
                inside.run("ip", "address", "add", address, "dev", device)
                inside.run("ip", "link", "set", device, "up")
            assert {route.device for route in routes()} == {"staying"}
            inside.run("ip", "link", "delete", "staying")


def test_routes_by_nexthop_objects(rtnl: Rtnl, ip: Netlink, inside: Host) -> None:
    """Routes that name a nexthop object, or a group of them, have devices too."""
    for name, net in (("br0", 1), ("br1", 2)):
        ip.addr("add", index=make(ip, name), address=f"10.{net}.0.1", prefixlen=24)
    inside.run("ip", "nexthop", "add", "id", "1", "via", "10.1.0.9", "dev", "br0")
    inside.run("ip", "nexthop", "add", "id", "2", "via", "10.2.0.9", "dev", "br1")
    inside.run("ip", "nexthop", "add", "id", "3", "group", "1/2")
    inside.run("ip", "route", "add", "10.4.0.0/16", "nhid", "1")
    inside.run("ip", "route", "add", "10.5.0.0/16", "nhid", "3")
    found = plain(rtnl.routes())
    assert ("10.4.0.0/16", "br0", 254) in found
    assert {("10.5.0.0/16", "br0", 254), ("10.5.0.0/16", "br1", 254)} <= set(found)
    for name in ("br0", "br1"):
        rtnl.delete_link(index_of(rtnl, name))
    inside.run("ip", "nexthop", "flush")


def test_many_routes(rtnl: Rtnl, ip: Netlink, inside: Host) -> None:
    """The kernel answers in many messages; all of them are read, by several devices' names too."""
    for number in range(20):
        make(ip, f"br{number}")
    pick = random.Random(1)  # noqa: S311 - which route goes where is no secret
    lines = [
        f"route add 10.{n >> 8}.{n & 255}.0/24 dev br{pick.randrange(20)} table {254 + n % 3}\n"
        for n in range(2000)
    ]
    inside.run("ip", "-batch", "-", input="".join(lines).replace("table 255", "table 777"))
    found = plain(rtnl.routes())
    assert len(found) == 2000
    assert found == as_routes(ip)
    for number in range(20):
        rtnl.delete_link(index_of(rtnl, f"br{number}"))


def test_routes_to_elsewhere_are_left_out(rtnl: Rtnl, ip: Netlink, inside: Host) -> None:
    """But for one of each kind: their devices have to be known."""
    for number in range(3):
        make(ip, f"br{number}")
    lines = [f"route add 10.{n}.0.0/16 dev br{n % 2}\n" for n in range(100)]
    lines += ["route add 172.16.0.0/12 dev br2\n", "route add 10.200.7.0/24 dev br0 table 100\n"]
    lines += ["route add 10.50.7.0/24 dev br1\n", "route add default dev br0\n"]
    inside.run("ip", "-batch", "-", input="".join(lines))
    everything = rtnl.routes()
    place = Subnet.parse("10.50.0.0/20")
    found = rtnl.routes((place, Subnet.parse("10.200.0.0/20")))
    near = [r for r in everything if r.subnet.overlaps(place) or r.table == 100]
    assert {(str(r.subnet), r.device) for r in near} == {
        *(("0.0.0.0/0", "br0"), ("10.50.0.0/16", "br0")),
        *(("10.50.7.0/24", "br1"), ("10.200.7.0/24", "br0")),
    }
    assert set(near) <= set(found) <= set(everything)
    assert len(found) <= len(near) + 3
    assert {r.device for r in found} == {"br0", "br1", "br2"}
    for number in range(3):
        rtnl.delete_link(index_of(rtnl, f"br{number}"))


def test_answer_read_in_part(rtnl: Rtnl, ip: Netlink) -> None:
    """What is left of an answer that nobody read to its end is no part of the next one."""
    for number in range(40):
        make(ip, f"br{number}")
    assert next(rtnl._ask(RTM_GETLINK, NLM_F_DUMP, bytes(16), RTM_NEWLINK))
    for number in range(40):
        assert rtnl.link(f"br{number}") == as_link(seen(ip, f"br{number}"))
        rtnl.delete_link(index_of(rtnl, f"br{number}"))


# How the host gets elsewhere, and by which bridge that is; `ip` commands without the `ip`.
DEFAULTS = {
    "nothing": ("", ""),
    "another network only": ("route add 10.99.0.0/16 via 10.1.0.254", ""),
    "a gateway": ("route add default via 10.1.0.254", "br0"),
    "a device": ("route add default dev br0", "br0"),
    "two of them": (
        "route add default via 10.2.0.254 metric 100\nroute add default via 10.1.0.254 metric 50",
        "br0",
    ),
    "two halves, as VPNs set them over the real one": (
        """route add default via 10.2.0.254
        route add 0.0.0.0/1 via 10.1.0.254
        route add 128.0.0.0/1 via 10.1.0.254""",
        "br0",
    ),
    "a table by a rule": (
        """route add default via 10.2.0.254
        route add default via 10.1.0.254 table 100
        rule add table 100 priority 1000""",
        "br0",
    ),
    "a table by a rule for another source": (
        """route add default via 10.1.0.254
        route add default via 10.2.0.254 table 100
        rule add from 10.2.0.1 table 100 priority 1000""",
        "br0",
    ),
    "a suppressing rule, as wg-quick sets it": (
        """route add default via 10.2.0.254
        route add default via 10.1.0.254 table 51820
        rule add table main suppress_prefixlength 0 priority 1000
        rule add table 51820 priority 1001""",
        "br0",
    ),
    "two gateways at once": (
        "route add default nexthop via 10.1.0.254 nexthop via 10.1.0.253",
        "br0",
    ),
    **{
        kind: (f"route add {kind} default", "") for kind in "blackhole unreachable prohibit".split()
    },
    "throw": ("route add throw default", ""),
}


@pytest.mark.parametrize(("commands", "expected"), DEFAULTS.values(), ids=DEFAULTS.keys())
def test_default_device(
    rtnl: Rtnl, ip: Netlink, inside: Host, commands: str, expected: str
) -> None:
    for name, net in (("br0", 1), ("br1", 2)):
        ip.addr("add", index=make(ip, name), address=f"10.{net}.0.1", prefixlen=24)
    inside.run("ip", "-batch", "-", input=f"{commands}\n")
    found, theirs = rtnl.default_device(), by_pyroute2(ip)
    for name in ("br0", "br1"):
        rtnl.delete_link(index_of(rtnl, name))
    undo = "rule del priority 1000\nrule del priority 1001\nroute del default\n"
    inside.run("ip", "-force", "-batch", "-", input=undo, check=False)
    assert theirs == expected
    assert found == expected


def by_pyroute2(ip: Netlink) -> str:
    """Return the device by which packets to elsewhere leave, empty if they do not."""
    try:
        route = ip.route("get", dst="1.1.1.1")[0]
    except NetlinkError as error:
        if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
            return ""
        raise
    name: str = ip.get_links(route.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME")
    return name
