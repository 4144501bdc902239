"""QEMU's grammar: its words, its key=value lists and its network options, whatever is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.model.numbers import parse_uint32
from qemu_netwrap.qemu import command_line, netdev_options, network_options
from qemu_netwrap.qemu.command_line import Option
from qemu_netwrap.qemu.json_options import JsonObject
from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.qemu.known_options import WITH_ARGUMENT, WITHOUT_ARGUMENT

LISTS = st.text(alphabet="ab=, no{}id\"':é\n", max_size=30) | st.text(max_size=30)
OPTIONS = st.sampled_from("-netdev -nic -net -device --nic -S -m -h -nosuch - -- ---nic".split())


def option(value: str, name: str = "netdev") -> Option:
    return Option(name, 1, value)


def fault_of(value: str, name: str = "netdev") -> str:
    seen = network_options.read(command_line.parse(["qemu", f"-{name}", value]), {})
    return next((wrong for _, wrong in network_options.faults(seen)), "")


# Words


@given(st.lists(OPTIONS | LISTS, max_size=12))
def test_any_words_can_be_cut_and_put_together_again(argv: list[str]) -> None:
    line = command_line.parse(argv)
    assert line.words == tuple(argv)
    assert line.with_values({}) == tuple(argv)
    values = {o.at: o.value for o in line.options if o.value is not None}
    assert line.with_values(values) == tuple(argv)
    arguments = len(values)
    assert len(line.options) + arguments + len(line.images) + len(line.unknown) == len(argv[1:])


@given(st.lists(OPTIONS | LISTS, max_size=12))
def test_any_network_option_can_be_read(argv: list[str]) -> None:
    for found in command_line.parse(argv).named("netdev", "nic", "net"):
        net = netdev_options.parse(found)
        assert net is None or isinstance(netdev_options.fault(net), str)


def test_cuts_as_qemu_does() -> None:
    argv = [
        "qemu",
        "disk",
        "--m",
        "2G",
        "-S",
        "-name",
        "-nic",
        "-",
        "--",
        "---nic",
        "-nic=x",
        "-NIC",
    ]
    line = command_line.parse(argv)
    assert line.options == (Option("m", 2, "2G"), Option("S", 4), Option("name", 5, "-nic"))
    assert line.images == ("disk",)
    assert line.unknown == ("-", "--", "---nic", "-nic=x", "-NIC")
    assert line.refused
    assert not line.truncated


def test_a_missing_argument_is_seen() -> None:
    assert command_line.parse(["qemu", "-S", "-nic"]).truncated
    assert command_line.parse(["qemu", "-S", "-nic"]).refused
    assert not command_line.parse(["qemu", "-nic", "-S"]).refused


def test_words_of_a_qemu_not_met_yet() -> None:
    argv = ["qemu", "-new", "-nic", "-flag", "-nic", "user"]
    line = command_line.parse(argv, WITH_ARGUMENT | {"new"}, WITHOUT_ARGUMENT | {"flag"})
    assert [(o.name, o.value) for o in line.options] == [
        ("new", "-nic"),
        ("flag", None),
        ("nic", "user"),
    ]


@pytest.mark.parametrize(
    ("argv", "prints"),
    [
        ("-h", True),
        ("-nic tap --version", True),
        ("-name -version", False),
        ("-netdev help", True),
        ("-netdev type=help", True),
        ("-device ?", True),
        ("-device e1000,help", True),
        ("-nic user,model=help", True),
        ("-netdev user,id=help", False),
        ("-name help", False),
        ("-nic user,hostname=helper", False),
    ],
)
def test_prints_and_exits(argv: str, prints: bool) -> None:
    assert command_line.parse(["qemu", *argv.split()]).prints_and_exits is prints


# Lists


@given(LISTS, st.sampled_from(["", "type", "driver"]))
def test_an_unchanged_list_is_as_it_was_typed(text: str, implied: str) -> None:
    assert OptList.parse(text, implied).render() == text


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(alphabet="x,=é ")), min_size=1))
def test_what_is_added_is_read_again(pairs: list[tuple[str, str]]) -> None:
    again = OptList.parse(OptList.parse("tap,", "type").with_added(*pairs).render(), "type")
    assert [(item.key, item.value) for item in again.items] == [("type", "tap"), *pairs]


@given(LISTS)
def test_what_is_left_out_is_gone_and_the_rest_stays(text: str) -> None:
    opts = OptList.parse(text, "type")
    left = opts.without("id", "b")
    assert not {"id", "b"} & set(left)
    assert left.items == tuple(item for item in opts.items if item.key not in {"id", "b"})


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("tap", [("type", "tap")]),
        ("tap,id=a", [("type", "tap"), ("id", "a")]),
        ("id=a,tap", [("id", "a"), ("tap", "on")]),
        ("tap,vhost,novnet_hdr", [("type", "tap"), ("vhost", "on"), ("vnet_hdr", "off")]),
        ("tap,", [("type", "tap")]),
        ("tap,a=b,,c,,,d=e", [("type", "tap"), ("a", "b,c,"), ("d", "e")]),
        ("a,,b=c", [("type", "a,b=c")]),
        ("tap,a==b", [("type", "tap"), ("a", "=b")]),
        ("tap,a=", [("type", "tap"), ("a", "")]),
        (",tap", [("type", ""), ("tap", "on")]),
        (" tap", [("type", " tap")]),
        ('"a,b"', [("type", '"a'), ('b"', "on")]),
    ],
)
def test_reads_a_list(text: str, pairs: list[tuple[str, str]]) -> None:
    assert [(item.key, item.value) for item in OptList.parse(text, "type").items] == pairs


def test_the_last_of_a_key_counts_but_the_first_id() -> None:
    opts = OptList.parse("user,id=a,type=tap,id=b,br=x,br=y", "type")
    assert [opts.get(key) for key in ("type", "id", "br", "fd")] == ["tap", "a", "y", None]
    assert opts.all("br") == ("x", "y")


def test_a_type_is_changed_in_the_form_it_has() -> None:
    assert OptList.parse("nat,id=a", "type").with_type("tap").render() == "tap,id=a"
    assert OptList.parse("id=a,type=nat", "type").with_type("tap").render() == "id=a,type=tap"


def test_json_is_as_it_was_typed_until_it_is_changed() -> None:
    text = '{ "type":"tap" , "vhost":true, "queues":2, "id":"é" }'
    opts = JsonObject.parse(text)
    assert opts.render() == text
    assert [opts.get(k) for k in ("type", "vhost", "queues", "no")] == ["tap", "on", "2", None]
    changed = opts.without("queues").with_type("x").with_added(("fd", "3"))
    assert changed.render() == '{"type": "x", "vhost": true, "id": "é", "fd": "3"}'


@pytest.mark.parametrize("text", ["{", "{}x", '{"a":1,"a":2}', '{"a":{"b":1,"b":2}}', "[]", ""])
def test_what_is_no_json_object(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        JsonObject.parse(text)


# Values: what passes and what is refused was tried on QEMU 7.2 and 10.0.


@pytest.mark.parametrize("value", "on off yes no true false y n".split())
def test_booleans(value: str) -> None:
    assert fault_of(f"tap,id=a,vhost={value}") == ""
    net = netdev_options.parse(option(f"tap,vhost={value}"))
    assert net is not None
    assert net.flag("vhost", default=value not in {"on", "yes", "true", "y"}) == (
        value in {"on", "yes", "true", "y"}
    )


@pytest.mark.parametrize("value", ["1", "0", "ON", "Yes", "", " on", "True"])
def test_what_is_no_boolean(value: str) -> None:
    assert fault_of(f"tap,id=a,vnet_hdr={value}") == "Parameter 'vnet_hdr' expects 'on' or 'off'"


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("02", 2), ("0x2", 2), ("0X1f", 31), ("+1", 1), ("256", 256), ("010", 8)],
)
def test_numbers(text: str, number: int) -> None:
    assert parse_uint32(text) == number


@pytest.mark.parametrize("text", ["", "x", "08", "2.0", "1k", "0x", "1_0", "٣", "0b1"])
def test_what_is_no_number(text: str) -> None:
    assert parse_uint32(text) is None
    assert fault_of(f"tap,id=a,queues={text}").startswith("Parameter 'queues' expects")


@pytest.mark.parametrize("text", ["a", "A9", "a-b._c", "x" * 300])
def test_ids(text: str) -> None:
    assert fault_of(f"tap,id={text}") == ""


@pytest.mark.parametrize("text", ["1a", "_a", "a:b", "a/b", "ä", "#net1", "a,,", " a"])
def test_what_is_no_id(text: str) -> None:
    for name in ("netdev", "nic", "net"):
        assert fault_of(f"tap,id={text}", name) == "Parameter 'id' expects an identifier"


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("netdev", "tap", "Parameter 'id' is missing"),
        ("netdev", "user", "Parameter 'id' is missing"),
        ("nic", "tap", ""),
        ("netdev", "tap,id=a,mac=52:54:00:00:00:01", "Invalid parameter 'mac'"),
        ("nic", "tap,mac=52:54:00:00:00:01,model=e1000", ""),
        ("nic", "tap,macaddr=52:54:00:00:00:01", "Invalid parameter 'macaddr'"),
        ("net", "tap,queues=1", "Multiqueue tap cannot be used with hubs"),
        ("net", "tap,fd=3", ""),
        ("nic", "bridge,ifname=x", "Invalid parameter 'ifname'"),
        ("nic", "bridge,br=x,helper=y", ""),
        ("nic", "nat,br=x", "Invalid parameter 'br'"),
        ("nic", "nat,ifname=x,queues=2,vhost=on,vnet_hdr=off,sndbuf=0,poll-us=1", ""),
        ("nic", "user,nosuch=1", "Invalid parameter 'nosuch'"),
        ("nic", "user,network=lab", "Invalid parameter 'network'"),
        ("nic", "bridge,network=lab", "Invalid parameter 'network'"),
        ("nic", "tap,network=lab", ""),
        ("nic", "tap,hubid=1", "Invalid parameter 'hubid'"),
        ("net", "nic,macaddr=0,model=x,addr=2,vectors=3,id=n", ""),
        ("net", "nic,netdev=a", "netdev 'a' not found"),
        ("net", "nic,mac=52:54:00:00:00:01", "Invalid parameter 'mac'"),
        ("net", "nic,vlan=0", "Invalid parameter 'vlan'"),
    ],
)
def test_keys(name: str, value: str, fault: str) -> None:
    assert fault_of(value, name) == fault
