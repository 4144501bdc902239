"""Frozen data: records, lines of text, resources, addresses and names."""

from __future__ import annotations

import ipaddress
import re
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap import record_text
from qemu_netwrap.model import mac, names
from qemu_netwrap.model.ipv4 import Subnet, format_address, parse_address
from qemu_netwrap.record import Record
from qemu_netwrap.resources import base
from qemu_netwrap.resources.base import Resource, Unreadable, from_line
from qemu_netwrap.resources.links import Tap

KINDS = {name: base.load(name) for name in base.KINDS}
FIELDS = {"str": st.text(), "int": st.integers(), "bool": st.booleans()}
SUBNETS = st.builds(
    lambda address, length: Subnet(address >> 32 - length << 32 - length, length),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 32),
)


def of_kind(kind: type[Resource]) -> st.SearchStrategy[Resource]:
    return st.builds(kind, **{name: FIELDS[kind.__annotations__[name]] for name in kind.fields})


RESOURCES = st.one_of(*map(of_kind, KINDS.values()))


# Records


class Point(Record):
    kinds: ClassVar[int] = 2

    x: int
    y: int = 7


class Place(Point):
    name: str = ""


def test_fields_and_defaults() -> None:
    assert Point.fields == ("x", "y")
    assert Place.fields == ("x", "y", "name")
    assert (Point(1).x, Point(1).y, Point(y=2, x=1).y) == (1, 7, 2)
    assert Place(1, name="a").__dict__ == {"x": 1, "y": 7, "name": "a"}
    assert repr(Place(1, name="a")) == "Place(x=1, y=7, name='a')"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((), {"y": 1}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
)
def test_missing_and_surplus_fields(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(*args, **kwargs)


def test_equality_and_hash() -> None:
    assert Point(1, 2) == Point(x=1, y=2)
    assert hash(Point(1, 2)) == hash(Point(x=1, y=2))
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Place(1, 2)
    assert Point(1, 2) != (1, 2)
    assert len({Point(1), Point(1, 7), Point(2), Place(1)}) == 3


def test_records_cannot_be_set() -> None:
    point = Point(1)
    for name in ("x", "y", "z"):
        with pytest.raises(AttributeError, match=f"Point.{name}"):
            setattr(point, name, 5)
    assert point == Point(1)


def test_a_changed_copy() -> None:
    point = Point(1)
    assert point.replace(y=3) == Point(1, 3)
    assert point == Point(1)
    with pytest.raises(TypeError):
        point.replace(z=3)


# Lines of text


@given(
    st.text(alphabet=st.characters(exclude_characters="\t\n")),
    st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text()),
)
def test_a_line_is_read_as_it_was_written(kind: str, fields: dict[str, str]) -> None:
    line = record_text.write(kind, fields)
    assert "\n" not in line
    assert record_text.read(line) == (kind, fields)


@given(st.text(alphabet="\\\t\nnt="))
def test_escapes(value: str) -> None:
    assert record_text.unescape(record_text.escape(value)) == value
    assert not {"\t", "\n"} & set(record_text.escape(value))


@given(st.text())
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        kind, fields = record_text.read(line)
    except ValueError:
        return
    assert isinstance(kind, str)
    assert all(isinstance(value, str) for value in fields.values())


@given(RESOURCES)
def test_a_resource_is_read_as_it_was_written(resource: Resource) -> None:
    line = resource.to_line()
    assert "\n" not in line
    again = from_line(line)
    assert again == resource
    assert [type(v) for v in again.__dict__.values()] == [
        type(v) for v in resource.__dict__.values()
    ]


@given(st.sampled_from(sorted(KINDS)), st.text())
def test_what_is_no_resource_is_kept_as_a_line(kind: str, rest: str) -> None:
    """Of another version, or damaged: nothing of it is guessed at."""
    for line in (f"{kind}x{rest}", f"{kind}\tnosuch={rest}"):
        assert from_line(line) == Unreadable(line)


def test_a_resource_of_another_version_is_read_as_far_as_it_can_be() -> None:
    """Fields that the other version did not have are at their defaults, its own are left out."""
    line = Tap("qn1-0", "br0", 2, vnet_hdr=False).to_line()
    older = line.removesuffix("\tisolated=0\tchecksums=0")
    assert older != line
    assert from_line(older) == from_line(line) == from_line(f"{line}\tcolour=red")


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(st.data())
def test_what_must_be_known_is_not_guessed(kind: str, data: st.DataObject) -> None:
    resource = data.draw(of_kind(KINDS[kind]))
    name, *fields = resource.to_line().split("\t")
    for at, field in enumerate(fields):
        if not hasattr(KINDS[kind], field.partition("=")[0]):
            line = "\t".join((name, *fields[:at], *fields[at + 1 :]))
            assert from_line(line) == Unreadable(line)


# Addresses


@given(SUBNETS, SUBNETS)
def test_overlap(one: Subnet, other: Subnet) -> None:
    first, second = (ipaddress.IPv4Network((s.network, s.length)) for s in (one, other))
    assert one.overlaps(other) == first.overlaps(second)
    assert one.overlaps(other) == other.overlaps(one)


@given(SUBNETS)
def test_subnet(subnet: Subnet) -> None:
    reference = ipaddress.IPv4Network((subnet.network, subnet.length))
    assert str(subnet) == str(reference)
    assert Subnet.parse(str(subnet)) == subnet
    assert subnet.mask == int(reference.netmask)
    if subnet.length < 31:
        assert subnet.first == str(reference[1])
        assert subnet.last == str(reference[-2])
        assert subnet.host(2) == str(reference[2])


@given(st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){2,4}(/[0-9]{1,3})?", fullmatch=True) | st.text())
def test_what_is_taken_for_a_subnet_is_one(typed: str) -> None:
    """Zeros in front are not looked at: the standard library refuses them."""
    plain = re.sub(r"(?<!\d)0+(?=\d)", "", typed)
    try:
        read = str(Subnet.parse(typed))
    except ValueError:
        read = ""
    try:
        wanted = str(ipaddress.IPv4Network(plain)) if re.search(r"/\d+$", plain, re.ASCII) else ""
    except ValueError:
        wanted = ""
    assert read == wanted


@pytest.mark.parametrize(
    "typed", ["", "1.2.3.4", "1.2.3.0/", "1.2.3.0/33", "1.2.3/24", "1.2.3.0/x"]
)
def test_what_is_no_subnet(typed: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Subnet.parse(typed)


def test_host_bits_are_told_with_the_network() -> None:
    with pytest.raises(ValueError, match=r"host bits set; the network is 192\.168\.0\.0/24"):
        Subnet.parse("192.168.0.1/24")


@given(st.integers(0, 0xFFFFFFFF))
def test_address(address: int) -> None:
    assert format_address(address) == str(ipaddress.IPv4Address(address))
    assert parse_address(format_address(address)) == address


# MACs


@given(st.lists(st.text()), st.integers(0, 64))
def test_a_mac_of_ours(key: list[str], attempt: int) -> None:
    ours = mac.derive(*key, attempt=attempt)
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", ours)
    assert mac.derive(*key, attempt=attempt) == ours
    assert mac.unpack(mac.pack(ours)) == ours == mac.parse(ours.upper())


def test_macs_differ() -> None:
    keys = [("host", vm, str(nic)) for vm in ("a", "b", "vm-0", "vm-1") for nic in range(8)]
    macs = [mac.derive(*key, attempt=attempt) for key in keys for attempt in range(4)]
    assert len(set(macs)) == len(macs)
    assert mac.derive("a", "bc") != mac.derive("ab", "c")


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("52:54:0:1:2:3", "52:54:00:01:02:03"),
        ("52-54-00-AB-CD-EF", "52:54:00:ab:cd:ef"),
        ("0x123", "00:00:00:00:01:23"),
        ("010", "00:00:00:00:00:08"),
        ("00-00-00-00-00-00", ""),
        ("0", ""),
        ("2::3:4:5:", "02:00:03:04:05:00"),
        ("", ""),
    ],
)
def test_a_mac_as_the_kernel_prints_it(typed: str, normal: str) -> None:
    assert mac.parse(typed) == normal


@pytest.mark.parametrize("typed", ["zz", "../../x", "52:54:00:12:34:56:78", "08", "52:54:0:1:2:3x"])
def test_a_mac_that_is_none(typed: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax for ethernet address"):
        mac.parse(typed)


def test_macs_of_devices_are_strict() -> None:
    assert mac.parse("01:00:5e:00:00:01", strict=True) == "01:00:5e:00:00:01"
    for typed in ("52:54:0:1:2:3", "5", ""):
        with pytest.raises(ValueError, match="invalid syntax"):
            mac.parse(typed, strict=True)


# Names


@given(st.text())
def test_any_text_names_an_interface_or_not(name: str) -> None:
    if not names.ifname_fault(name):
        assert 0 < len(name.encode()) <= 15
        assert not re.search(r"[\s/:%\0]", name)
        assert name not in {".", ".."}


@pytest.mark.parametrize("name", ["eth0", "a" * 15, "br-lan", "vm0.100", "é", "v,0"])
def test_ifnames(name: str) -> None:
    assert names.ifname_fault(name) == ""


@pytest.mark.parametrize("name", ["", "a" * 16, "é" * 8, "a/b", "a b", ".", "..", "vm%d", "a:1"])
def test_what_is_no_ifname(name: str) -> None:
    assert names.ifname_fault(name)


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,31}", fullmatch=True))
def test_a_network_has_a_bridge_of_its_own(network: str) -> None:
    assert names.network_name_fault(network) == ""
    bridge = names.bridge_name(network)
    assert names.ifname_fault(bridge) == ""
    assert names.plain_ifname(bridge)
    assert bridge.startswith("qn-")


def test_long_networks_have_bridges_that_differ() -> None:
    assert names.bridge_name("a-long-network-1") != names.bridge_name("a-long-network-2")
    assert names.bridge_name("a" * 12) == "qn-" + "a" * 12


@pytest.mark.parametrize("name", ["", "1a", "-a", "_", "a.b", "a b", "ä", "a" * 33, "a\n", "a;b"])
def test_what_names_no_network(name: str) -> None:
    assert names.network_name_fault(name)


@given(st.text())
def test_a_host_name_is_a_dns_label_or_nothing(name: str) -> None:
    label = names.host_label(name)
    assert re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?", label)
    assert bool(label) == bool(re.search(r"[A-Za-z0-9]", name[:63]))


@given(st.integers(1, 4194304), st.sampled_from(["", "z"]), st.integers(0, 99))
def test_taps_of_ours_fit(pid: int, suffix: str, index: int) -> None:
    assert names.ifname_fault(names.tap_name(f"{pid}{suffix}", index)) == ""
