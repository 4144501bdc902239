"""Mistakes found in the package: a test fails until its mistake is mended, and then keeps it so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.cli import main
from qemu_netwrap.cli import splitter as our_words
from qemu_netwrap.config import parse
from qemu_netwrap.errors import ConfigError, NetwrapError, UsageError
from qemu_netwrap.linux import files
from qemu_netwrap.model.host import NetworkFacts, Route
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.names import guest_names
from qemu_netwrap.model.network import NAT, Config, Network
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.qemu import command_line
from qemu_netwrap.qemu.network_options import interpret
from qemu_netwrap.record import Record
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.resources.links import Bridge, Tap
from qemu_netwrap.resources.nftables import NetworkChains
from qemu_netwrap.runtime import plan, runs
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from pathlib import Path

KEYS = "fd fds helper vhostfd script downscript ifname br network mac id queues vhost type".split()
VALUES = ["", "no", "on", "2", "nat", "n0", "a,,b", "/x", "\udcff", "52:54:00:00:00:01"]
LISTS = st.lists(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4
).map(",".join)


def planned(*argv: str) -> plan.Plan | None:
    reading = interpret(command_line.parse(["qemu", *argv]))
    if reading is None:
        return None
    return plan.make(reading, Config(), plan.Facts("1", "machine"))


def macs(argv: str) -> list[str]:
    made = planned(*argv.split())
    assert made is not None
    return [p.nic.macs[n] or p.nic.own_mac(n) for p in made.nics for n in range(len(p.nic.macs))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["-netdev", "-nic", "-net"]),
            st.builds("{},{}".format, st.sampled_from(["tap", "nat", "bridge", "user"]), LISTS),
        )
    )
)
def test_planning_raises_errors_of_ours_alone(options: list[tuple[str, str]]) -> None:
    try:
        made = planned(*(word for option in options for word in option))
    except NetwrapError as error:
        mistake = error
    else:
        nics = [p.nic for p in made.nics] if made else []
        assert all(re.fullmatch(r"(?:[0-9a-f]{2}(:|$)){6}|", m) for n in nics for m in n.macs)
        return
    assert mistake.hint


@pytest.mark.parametrize("key", ["fd=no", "helper=no", "nofd"])
def test_a_descriptor_called_no(key: str) -> None:
    with pytest.raises(UsageError):
        planned("-nic", f"tap,network=nat,{key}")


@pytest.mark.parametrize("value", ["nat,ifname=\udcff", "bridge,br=\udcff"])
def test_a_name_that_is_not_utf8(value: str) -> None:
    with pytest.raises(UsageError):
        planned("-nic", value)


@pytest.mark.parametrize("mac", ["zz", "../../x", "01:00:5e:00:00:01", "52:54:00:12:34:56:78"])
def test_a_mac_that_is_none(mac: str) -> None:
    """It would name a file in the state folder, and a host in dnsmasq's configuration."""
    with pytest.raises(UsageError):
        planned("-nic", f"nat,mac={mac}")


@pytest.mark.parametrize(
    "argv",
    [
        ("-netdev", "tap,id=n0,fd="),
        ("-netdev", "tap,id=n0,fds="),
        ("-netdev", "tap,id=n0,helper="),
        ("-netdev", "tap,id=n0,vhostfd="),
        ("-netdev", "tap,id=n0,queues=2 "),
        ("-netdev", "tap,id=n0,queues=0o2"),
        ("-netdev", "tap,id=n0,poll-us=-1"),
        ("-netdev", "tap,id=n0,poll-us=4294967296"),
        ("-netdev", "tap,id=n0,sndbuf=1MB"),
        ("-netdev", '{"type":"tap","id":"n0","queues":"2"}'),
        ("-netdev", '{"type":"tap","id":"n0","vhost":"on"}'),
        ("-nic", '{"type":"tap"}'),
        ("-net", '{"type":"tap"}'),
        ("-nic", "tap,mac=zz"),
        ("-nic", "tap,mac=01:00:5e:00:00:01"),
        ("-nic", "tap,id=n0", "-nic", "user,id=n0"),
        ("-netdev", "tap,id=n0", "-nic", "user,id=n0"),
        ("-netdev", "tap,id=n0", "-net", "nic,id=n0"),
        ("-nic", "tap") * 9,
    ],
    ids=" ".join,
)
def test_what_qemu_refuses_reaches_it_unchanged(argv: tuple[str, ...]) -> None:
    """Each was tried on QEMU 7.2."""
    assert planned(*argv) is None


@pytest.mark.parametrize(
    "argv",
    [
        ("-netdev", "{'type':'user','id':'u'}", "-nic", "nat"),
        ("-netdev", "{'type':'tap','id':'n0'}"),
        ("-netdev", "dgram,id=1a,local.type=unix,local.path=/x", "-nic", "nat"),
        ("-netdev", "tap,id=n0,queues=+02"),
        ("-nic", "nat", "-drive", "file=help"),
        ("-nic", "tap,ifname=help"),
    ],
    ids=" ".join,
)
def test_what_qemu_takes_is_planned(argv: tuple[str, ...]) -> None:
    made = planned(*argv)
    assert made is not None
    assert len(made.nics) == 1


@pytest.mark.parametrize(
    "setting", ["netdev.n0.script=/x", "netdev.n0.fd=3", "netdev.n0.type=user"]
)
def test_set_changes_a_netdev(setting: str) -> None:
    assert planned("-netdev", "tap,id=n0", "-set", setting) is None


def test_set_gives_a_mac() -> None:
    typed = "52:54:00:00:00:01"
    line = f"-netdev nat,id=n0 -device e1000,id=d0,netdev=n0 -set device.d0.mac={typed}"
    assert macs(line) == [typed]


def test_an_all_zero_mac_may_have_dashes() -> None:
    assert macs("-nic nat,mac=00-00-00-00-00-00") != ["00:00:00:00:00:00"]


@pytest.mark.parametrize(
    "disks",
    [
        "-drive if=pflash,readonly=on,file=OVMF_CODE.fd -drive file={}.img",
        "-cdrom debian.iso -hda {}.img",
        "-cdrom debian.iso -hdb {}.img",
        "-drive file=debian.iso,media=cdrom -drive file={}.img",
        "-kernel vmlinuz -drive file={}.img",
        "-blockdev file,node-name=f,filename={}.img -blockdev qcow2,node-name=d,file=f",
        "-blockdev driver=qcow2,node-name=d,file=f -blockdev file,node-name=f,filename={}.img",
        '-blockdev {{"driver":"qcow2","node-name":"d","file":{{"driver":"file","filename":"{}"}}}}',
    ],
)
def test_vms_with_disks_of_their_own_have_macs_of_their_own(disks: str) -> None:
    one, other = (macs(f"{disks.format(disk)} -nic nat") for disk in "ab")
    assert one != other


def test_a_bridge_named_like_the_built_in_network() -> None:
    """`br=qn-nat` means the NAT network's own bridge: the NIC of `nat` must not lose its NAT."""
    made = planned("-nic", "nat", "-nic", "tap,br=qn-nat")
    assert made is not None
    assert [network.mode for network in made.wanted.networks] == [NAT]


def test_json_nested_deeply() -> None:
    assert planned("-netdev", '{"a":' * 20000) is None


# The configuration


@pytest.mark.parametrize("value", ["[]", '["lan"]', "{}", "{a=1}", "0", "false", "1979-05-27"])
def test_a_default_that_is_no_string(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^c\.toml:1: default: expected a string"):
        parse.parse(f"default = {value}", "c.toml")


@pytest.mark.parametrize(
    "text", ['"a\\nb" = 1', '[networks."a\\nb"]', '[networks.a]\n"x\\ny" = 1\nmode = "nat"']
)
def test_a_message_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse.parse(text, "c.toml")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('# a\n\n[network.lan]\nmode = "nat"', 3),
        ("# a\u2028b\n\n[networks.lan]\nmode = 5", 4),
        ('default = "nat"\n[networks]\nlab = 5', 3),
        ("\n[networks.'lan']\nmode = 5", 3),
    ],
)
def test_the_line_of_a_mistake(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"^c\.toml:{line}: "):
        parse.parse(text, "c.toml")


@pytest.mark.parametrize("text", [f"x = {'1' * 5000}", "x = " + "[" * 5000], ids=["long", "deep"])
def test_toml_that_python_will_not_read(text: str) -> None:
    with pytest.raises(ConfigError):
        parse.parse(text, "c.toml")


@pytest.mark.parametrize(
    "setting",
    ['subnet = "0.0.0.0/0"', 'subnet = "127.0.0.0/8"', 'subnet = "224.0.0.0/24"', 'dns = [":"]'],
)
def test_values_that_cannot_work(setting: str) -> None:
    with pytest.raises(ConfigError):
        parse.parse(f'[networks.lab]\nmode = "nat"\n{setting}', "c.toml")


# Networks


def test_every_uplink_is_guarded() -> None:
    """An uplink whose forwarding only we switch on must not make the host its router."""
    around = NetworkFacts(routes=(Route(Subnet.parse("0.0.0.0/0"), "6to4"),))
    made = network_resources(Network("nat", NAT, "qn-nat"), around)
    rules = "".join(r.rules for r in made if isinstance(r, NetworkChains))
    assert 'iifname "6to4" oifname != { "qn-nat", "6to4" } drop' in rules


def test_host_names_are_labels() -> None:
    names = guest_names("a" * 63)
    assert all(len(next(names)) <= 63 for _ in range(3))


# Data


def test_a_records_field_cannot_be_deleted() -> None:
    class Point(Record):
        x: int

    point = Point(1)
    with pytest.raises(AttributeError):
        del point.x


def test_a_journal_cut_short_can_be_gone_on_with(tmp_path: Path) -> None:
    """What the crash cut off must not swallow the line of whoever releases the rest."""
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.intend(Bridge("b", "52:54:00:00:00:01"))
    journal.note(1, index="7")
    journal.intend(Tap("t", "b"))
    whole = path.read_bytes()
    for end in range(1, len(whole) + 1):
        path.write_bytes(whole[:end])
        for entry in journal.live():
            journal.done(entry.number)
        assert journal.live() == [], whole[:end]


def test_a_journal_with_odd_digits(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("+²\tx\n")
    try:
        assert Journal(str(path)).intend(Tap("t", "b")) == 1
    except NetwrapError as error:
        mistake = error.hint
        assert mistake


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    files.write(f"{tmp_path}/file", "a\rb\r\nc")
    assert files.read(f"{tmp_path}/file") == "a\rb\r\nc"


@pytest.mark.parametrize("odd", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_run_is_known_whatever_its_words(tmp_path: Path, odd: str) -> None:
    made = planned("-append", f"a{odd}b", "-nic", "nat")
    assert made is not None
    state = StateDir(str(tmp_path))
    files.make_folder(state.run("1"))
    runs.write_info(state, made.wanted, 1, [])
    info, nics = runs.read_info(state, "1")
    assert (info.command, nics) == (f"qemu -append a{odd}b -nic nat", [])


# Our words


def test_words_that_inform_are_known_to_typer() -> None:
    app = typer.main.get_command(main.app)
    declared = {word for param in app.params for word in param.opts}
    helps = set(app.context_settings["help_option_names"])
    assert declared | helps >= our_words.INFORM
