"""The configuration: every key, and every mistake told with its line and a remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.config import parse
from qemu_netwrap.errors import ConfigError
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import Prefix
from qemu_netwrap.model.network import MODES, Config, Network

NAT = '[networks.lab]\nmode = "nat"\n'
BRIDGE = '[networks.lan]\nmode = "bridge"\n'
LAB = f'{NAT}subnet = "10.0.0.0/29"\n'
MAC = "52:54:00:00:00:0"

VALUES = st.one_of(
    st.sampled_from(
        """
        true false 0 1 2 30 -1 1.5 "" "nat" "bridge" "host-only" "br0" "10.0.0.0/24" [] {} [[]]
        ["192.0.2.1"] [1] {a=1} 1979-05-27 inf 'x' "10.0.0.1/24" \"\"\"a\"\"\" "0.0.0.0/0"
        """.split()
    ),
    st.text(max_size=8),
)
KEYS = st.sampled_from([*parse.keys(), "nosuch", '"a b"', "mode.x"])
LINES = st.one_of(
    st.sampled_from(
        ["[networks.a]", "[networks.b]", "[networks]", "[[networks]]", "[networks.'x y']", "[n]"]
    ),
    st.sampled_from(['default = "a"', 'default = "nat"', 'default = ""', "networks = 1", "x = 1"]),
    st.builds("{} = {}".format, KEYS, VALUES),
    st.text(max_size=12),
)


def only(text: str) -> Network:
    (network,) = parse.parse(text, "c.toml").networks
    return network


def test_every_key() -> None:
    text = """
        default = "lan"

        [networks.lan]
        mode = "bridge"
        bridge = "br0"
        uplink = "enp3s0"
        stp = true
        isolated = true
        mac_filter = true
        ip_filter = false
        forward_delay = 2
        hello_time = 1

        [networks.lab]
        mode = "nat"
        subnet = "192.168.0.0/24"
        subnet6 = "fd00:1:2:3::/64"
        dns = ["8.8.8.8", "2001:db8::1"]
        hosts = { files = "192.0.2.9", "a.b" = "2001:db8::9" }
        addresses = { web = "192.168.0.9", "52:54:00:00:00:0A" = "192.168.0.10" }
        host_services = ["ssh", "tcp/8080", "udp/1-9"]
        tftp = "/srv//tftp/"
        bootfile = "http://192.0.2.1/boot.ipxe"

        [networks.closed]
        mode = "host-only"
        subnet = "10.1.0.0/29"
        ipv6 = false
    """
    lan = Network("lan", "bridge", "br0", stp=True, forward_delay=2, hello_time=1)
    lan = lan.replace(uplink="enp3s0", agreed=True, isolated=True, mac_filter=True, ip_filter=False)
    subnet, servers = Subnet.parse("192.168.0.0/24"), ("8.8.8.8", "2001:db8::1")
    hosts = (("files", "192.0.2.9"), ("a.b", "2001:db8::9"))
    addresses = (("web", "192.168.0.9"), ("52:54:00:00:00:0a", "192.168.0.10"))
    lab = Network("lab", "nat", "qn-lab", subnet, dns=servers, hosts=hosts, addresses=addresses)
    lab = lab.replace(subnet6=Prefix.parse("fd00:1:2:3::/64"))
    lab = lab.replace(host_services=("ssh", "tcp/8080", "udp/1-9"))
    lab = lab.replace(tftp="/srv/tftp", bootfile="http://192.0.2.1/boot.ipxe")
    closed = Network("closed", "host-only", "qn-closed", Subnet.parse("10.1.0.0/29"), ipv6=False)
    found = parse.parse(text, "c.toml")
    assert found == Config("lan", (lan, lab, closed), "c.toml")
    assert found.network("lab") == found.by_bridge("qn-lab") == lab
    assert found.network("x") is found.by_bridge("x") is None
    assert set(parse.keys()) == {line.split()[0] for line in text.splitlines() if "=" in line} - {
        "default"
    }


def test_defaults() -> None:
    assert parse.parse("", "c.toml") == Config(path="c.toml")
    assert only(NAT) == Network("lab", "nat", "qn-lab", None, ipv6=True, subnet6=None)
    assert only(BRIDGE).forward_delay is only(BRIDGE).hello_time is None


@pytest.mark.parametrize("name", ["nat", "host-only"])
def test_built_in_networks_can_be_the_default(name: str) -> None:
    assert parse.parse(f'default = "{name}"', "c.toml").default == name


@pytest.mark.parametrize(("text", "found"), [("", False), ("bind_group = true", True)])
def test_bind_group(text: str, *, found: bool) -> None:
    assert parse.parse(text, "c.toml").bind_group is found


@pytest.mark.parametrize("name", ["auto", "pasta", "slirp4netns"])
def test_uplink_helper(name: str) -> None:
    assert parse.parse(f'uplink_helper = "{name}"', "c.toml").uplink_helper == name
    assert parse.parse("", "c.toml").uplink_helper == "auto"


@pytest.mark.parametrize("text", ["", 'run_as = ""', 'run_as = "invoker"'])
def test_run_as(text: str) -> None:
    assert parse.parse(text, "c.toml").run_as == ("invoker" if "invoker" in text else "")


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        # the file
        ("\nx", 2, "Expected '=' after a key", "TOML"),
        ("a = 1\n\na = [", 3, "", "TOML"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite a value", "TOML"),
        ('\ndefalt = "lab"', 2, "defalt: unknown key", "default, bind_group, uplink_helper"),
        (
            f"{NAT}\n[network]\nx = 1",
            4,
            "network: unknown key",
            "default, bind_group, uplink_helper",
        ),
        ("\nnetworks = 5", 2, "networks: expected tables", "[networks.NAME]"),
        ("\nnetworks = [{}]", 2, "networks: expected tables", "[networks.NAME]"),
        # default
        ('\ndefault = "lab"', 2, "default: there is no network 'lab'", "host-only, nat"),
        (f'default = "x"\n{NAT}', 1, "default: there is no network 'x'", "host-only, lab, nat"),
        ("\n\ndefault = 5", 3, "default: expected a string", "known networks"),
        ("default = true", 1, "default: expected a string", "known networks"),
        # bind_group
        ("\nbind_group = 1", 2, "bind_group: expected true or false", "it is now 1"),
        # uplink_helper
        ("\nuplink_helper = 1", 2, "uplink_helper: expected one of: auto, pasta", "it is now 1"),
        ('uplink_helper = "slirp"', 1, "uplink_helper: expected one of", "it is now 'slirp'"),
        ("uplink_helper = []", 1, "uplink_helper: expected one of", "it is now []"),
        # run_as
        ('\nrun_as = "alice"', 2, 'run_as: expected "invoker"', "it is now 'alice'"),
        ("run_as = 1", 1, 'run_as: expected "invoker"', "--run-as"),
        ("run_as = []", 1, 'run_as: expected "invoker"', "it is now []"),
        # a network
        ("\n[networks.1st]", 2, "networks.1st: the name must begin with a letter", "rename"),
        ('[networks."a b"]', 1, "networks.a b: the name must begin", "rename"),
        (f"[networks.{'a' * 33}]", 1, f"networks.{'a' * 33}: the name is over 32", "rename"),
        (f"{NAT}moed = 1", 3, "networks.lab.moed: unknown key", "mode, bridge, stp"),
        (f"{NAT}hosts = 1", 3, "networks.lab.hosts: expected names", "it is now 1"),
        (f"{NAT}hosts = {{a = 1}}", 3, "networks.lab.hosts: expected names", "{'a': 1}"),
        (f'{NAT}hosts = {{a = "x"}}', 3, "networks.lab.hosts: 'x' does not appear", "{'a': 'x'}"),
        (f'{NAT}hosts = {{"a,b" = "::1"}}', 3, "hosts: 'a,b' is no host name", "a,b"),
        (f'{NAT}hosts = {{"a." = "::1"}}', 3, "hosts: 'a.' is no host name", "a."),
        (f'{NAT}upling = "e0"', 3, "networks.lab.upling: unknown key", "known here"),
        (f'{NAT}uplink = "e0"', 3, "networks.lab.uplink: is not for mode nat", "for: bridge"),
        (f'{BRIDGE}uplink = "a/b"', 3, "networks.lan.uplink: the name has a character", "a/b"),
        (f"{NAT}mac_filter = 1", 3, "networks.lab.mac_filter: expected true or false", "now 1"),
        (f"{NAT}ip_filter = 1", 3, "networks.lab.ip_filter: expected true or false", "now 1"),
        # tftp, bootfile
        (f"{NAT}tftp = 1", 3, "networks.lab.tftp: expected a folder", "now 1"),
        (f'{NAT}tftp = "srv"', 3, "networks.lab.tftp: expected a folder's whole path", "srv"),
        (f'{NAT}tftp = "/srv/../etc"', 3, "networks.lab.tftp: expected a folder's", "/etc"),
        (f'{NAT}tftp = "/./"', 3, "networks.lab.tftp: guests may read all", "/./"),
        (f'{NAT}tftp = "/etc/"', 3, "networks.lab.tftp: guests may read all", "/etc/"),
        (f'{NAT}tftp = "/srv,eth0"', 3, "networks.lab.tftp: has a character", "/srv,eth0"),
        (f'{NAT}tftp = "/srv\\nuser=root"', 3, "networks.lab.tftp: has a character", "user"),
        (f'{NAT}bootfile = ""', 3, "networks.lab.bootfile: expected a file", "now ''"),
        (f'{NAT}bootfile = "a,b,192.0.2.1"', 3, "bootfile: has a character", "a,b"),
        (f'{NAT}bootfile = "{"a" * 128}"', 3, "bootfile: over 127 bytes", "aaa"),
        # host_services
        (f"{NAT}host_services = 1", 3, "networks.lab.host_services: expected services", "now 1"),
        (f"{NAT}host_services = [22]", 3, "host_services: expected services like", "[22]"),
        (f'{NAT}host_services = ["shs"]', 3, "'shs' is no service known here: did you mean", "shs"),
        (f'{NAT}host_services = ["sctp/1"]', 3, "'sctp/1': the protocol is tcp or udp", "sctp"),
        (f'{NAT}host_services = ["tcp/"]', 3, "'tcp/': ports are from 1 to 65535", "tcp/"),
        (f'{NAT}host_services = ["tcp/0"]', 3, "ports are from 1 to 65535", "tcp/0"),
        (f'{NAT}host_services = ["tcp/65536"]', 3, "ports are from 1 to 65535", "65536"),
        (f'{NAT}host_services = ["tcp/9-1"]', 3, "the first port is above the last", "9-1"),
        (f'{NAT}host_services = ["tcp/1-"]', 3, "ports are from 1 to 65535", "1-"),
        (f'{NAT}host_services = ["tcp/\u0661"]', 3, "ports are from 1 to 65535", "tcp"),
        (f'{NAT}host_services = ["tcp/1 accept"]', 3, "ports are from 1 to 65535", "accept"),
        (f'{NAT}host_services = ["all", "ssh"]', 3, '"all" stands alone', "ssh"),
        (f'{NAT}host_services = ["ssh", "ssh"]', 3, "ssh is there twice", "ssh"),
        (f'{BRIDGE}host_services = ["ssh"]', 3, "host_services: is not for mode bridge", "nat"),
        # addresses
        (f"{NAT}addresses = 1", 3, "networks.lab.addresses: expected MACs or names", "now 1"),
        (f"{NAT}addresses = {{a = 1}}", 3, "lab.addresses: expected MACs or names", "{'a': 1}"),
        (f'{NAT}addresses = {{a = "x"}}', 3, "'x' is not an IPv4 address", "{'a': 'x'}"),
        (f'{NAT}addresses = {{A = "10.0.0.2"}}', 3, "'A' is neither a MAC nor", "{'A':"),
        (f'{NAT}addresses = {{"52:54:00" = "10.0.0.2"}}', 3, "invalid syntax for", "52:54:00"),
        (f'{NAT}addresses = {{"01:00:5e:00:00:01" = "10.0.0.2"}}', 3, "is no MAC", "01:00"),
        (f'{NAT}addresses = {{"0:0:0:0:0:0" = "10.0.0.2"}}', 3, "invalid syntax", "0:0"),
        (f'{NAT}addresses = {{a = "10.0.0.2"}}', 3, "addresses: they need a subnet", "subnet"),
        (f'{LAB}addresses = {{a = "10.1.0.2"}}', 4, "10.1.0.2 is none of 10.0.0.2 to 10.0.0.6", ""),
        (f'{LAB}addresses = {{a = "10.0.0.7"}}', 4, "10.0.0.7 is none of 10.0.0.2 to", "subnet"),
        (f'{LAB}addresses = {{a = "10.0.0.1"}}', 4, "10.0.0.1 is the gateway's", "subnet"),
        (f'{LAB}addresses = {{a = "10.0.0.2", b = "10.0.0.2"}}', 4, "10.0.0.2 is there twice", ""),
        (
            f'{LAB}addresses = {{"{MAC}A" = "10.0.0.2", "{MAC}a" = "10.0.0.3"}}',
            4,
            "52:54:00:00:00:0a is there twice",
            "",
        ),
        (f'{BRIDGE}addresses = {{a = "10.0.0.2"}}', 3, "is not for mode bridge", "nat, host-only"),
        ("\n[networks.lab]\n", 2, "networks.lab.mode: is missing", "bridge, nat, host-only"),
        ('[networks.lab]\n\nmode="vxlan"', 3, "networks.lab.mode: 'vxlan' is no mode", "nat"),
        ("[networks.lab]\nmode=[]", 2, "networks.lab.mode: [] is no mode", "nat"),
        # bridge
        (f"{NAT}bridge = 5", 3, "networks.lab.bridge: expected a string", "it is now 5"),
        (f'{NAT}bridge = ""', 3, "networks.lab.bridge: the name is empty", "it is now ''"),
        (f'{NAT}bridge = "{"a" * 16}"', 3, "networks.lab.bridge: the name is over 15", "aaa"),
        (f'{NAT}bridge = "a/b"', 3, "networks.lab.bridge: the name has a character", "'a/b'"),
        (f'{NAT}bridge = "a,b"', 3, "networks.lab.bridge: the name must be of letters", "'a,b'"),
        (f'{NAT}bridge = "br\\"0"', 3, "networks.lab.bridge: the name must be of letters", "br"),
        (f'{NAT}{BRIDGE}bridge = "qn-lab"', 5, "qn-lab is the bridge of network lab", "its own"),
        # what is not for the mode
        (f'{BRIDGE}subnet = "10.0.0.0/24"', 3, "subnet: is not for mode bridge", "nat, host-only"),
        (f"{BRIDGE}dns = []", 3, "networks.lan.dns: is not for mode bridge", "it is for: nat"),
        ('[networks.x]\nmode="host-only"\ndns=[]', 3, "is not for mode host-only", "for: nat"),
        # subnet
        (f"{NAT}subnet = 10", 3, "networks.lab.subnet: expected a string", "it is now 10"),
        (f'{NAT}subnet = "10.0.0.0"', 3, "expected a network like 192.168.0.0/24", "10.0.0.0"),
        (f'{NAT}subnet = "10.0.0/24"', 3, "'10.0.0' is not an IPv4 address", "10.0.0/24"),
        (f'{NAT}subnet = "10.0.0.256/24"', 3, "is not an IPv4 address", "it is now"),
        (f'{NAT}subnet = "10.0.0.5/24"', 3, "host bits set; the network is 10.0.0.0/24", "now"),
        (f'{NAT}subnet = "10.0.0.0/30"', 3, "subnet: the subnet is too small: /29", "it is now"),
        (f'{NAT}subnet = "fd00::/64"', 3, "expected a network like", "fd00::/64"),
        # dns
        (f'{NAT}dns = "8.8.8.8"', 3, "networks.lab.dns: expected addresses like", "it is now"),
        (f"{NAT}dns = [8]", 3, "networks.lab.dns: expected addresses like", "it is now [8]"),
        (
            f'{NAT}dns = ["one.example"]',
            3,
            "'one.example' does not appear",
            "it is now",
        ),
        (f'{NAT}dns = ["::1", "x::"]', 3, "'x::' does not appear", "it is now"),
        (f'{NAT}dns = [""]', 3, "'' does not appear", "it is now"),
        # STP
        (f"{BRIDGE}stp = 1", 3, "networks.lan.stp: expected true or false", "it is now 1"),
        (f'{BRIDGE}stp = "yes"', 3, "networks.lan.stp: expected true or false", "'yes'"),
        (f"{BRIDGE}forward_delay = 31", 3, "expected whole seconds from 0 to 30", "31"),
        (f"{BRIDGE}forward_delay = -1", 3, "expected whole seconds from 0 to 30", "-1"),
        (f"{BRIDGE}forward_delay = true", 3, "expected whole seconds from 0 to 30", "True"),
        (f"{BRIDGE}forward_delay = 1.5", 3, "expected whole seconds from 0 to 30", "1.5"),
        (f"{BRIDGE}hello_time = 0", 3, "expected whole seconds from 1 to 10", "0"),
        (f"{BRIDGE}hello_time = 11", 3, "expected whole seconds from 1 to 10", "11"),
        (f"{BRIDGE}stp = true\nforward_delay = 1", 4, "with STP it is at least 2", "stp = true"),
    ],
)
def test_mistakes(text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse.parse(text, "c.toml")
    assert caught.value.message.startswith(f"c.toml:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("header", ["[networks.lab]", '[networks."lab"]', "[ networks . lab ] # x"])
def test_the_line_is_found_in_the_right_table(header: str) -> None:
    text = f'{BRIDGE}stp = true\n\n{header}\nmode = "nat"\n  stp = 1\n'
    with pytest.raises(ConfigError, match=r"^c\.toml:7: networks\.lab\.stp: "):
        parse.parse(text, "c.toml")


@given(st.lists(LINES, max_size=8))
def test_any_text_is_a_configuration_or_a_mistake(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        found = parse.parse(text, "c.toml")
    except ConfigError as error:
        mistake = error
    else:
        assert {network.mode for network in found.networks} <= set(MODES)
        return
    place, line, _ = mistake.message.split(":", 2)
    assert place == "c.toml"
    assert 1 <= int(line) <= text.count("\n") + 1
    assert mistake.hint
