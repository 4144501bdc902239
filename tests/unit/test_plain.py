"""What other programs read has nothing in it but what it is meant to say."""

from __future__ import annotations

import itertools
import json
from typing import Final

import pytest

from qemu_netwrap.config import parse
from qemu_netwrap.errors import ConfigError, HostError
from qemu_netwrap.linux import dbus
from qemu_netwrap.model import addresses, network_managers, plain_text, reservations
from qemu_netwrap.model.host import NetworkFacts
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.nftables import NetworkChains

SMUGGLED: Final = (
    *(
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\x1b[2J",
        "\x85",
        "\x9b2J",
        "\u2028",
        "\u2029",
        "\u202e",
        "\ud800",
    ),
    *("\x0b", "\x0c", "\x1c", "\t", "\x7f"),
)
TAIL: Final = "dhcp-script=/run/harm"
# Every place of a configuration that a string stands in; %s is where it goes.
FIELDS: Final = {
    "default": "default = %s",
    "name": "[networks.%s]\nmode = 'nat'",
    "mode": "[networks.a]\nmode = %s",
    "bridge": "[networks.a]\nmode = 'nat'\nbridge = %s",
    "uplink": "[networks.a]\nmode = 'bridge'\nuplink = %s",
    "subnet": "[networks.a]\nmode = 'nat'\nsubnet = %s",
    "subnet6": "[networks.a]\nmode = 'nat'\nsubnet6 = %s",
    "dns": "[networks.a]\nmode = 'nat'\ndns = [%s]",
    "hosts, the name": "[networks.a]\nmode = 'nat'\nhosts = { %s = '192.0.2.1' }",
    "hosts, the address": "[networks.a]\nmode = 'nat'\nhosts = { a = %s }",
    "addresses, the name": (
        "[networks.a]\nmode = 'nat'\nsubnet = '10.0.0.0/24'\naddresses = { %s = '10.0.0.9' }"
    ),
    "addresses, the address": (
        "[networks.a]\nmode = 'nat'\nsubnet = '10.0.0.0/24'\naddresses = { a = %s }"
    ),
    "key": "[networks.a]\nmode = 'nat'\n%s = 1",
}
WELL: Final = {
    "subnet": "10.0.0.0/24",
    "subnet6": "fd00:1:2:3::/64",
    "addresses, the address": "10.0.0.9",
    "dns": "fe80::1%eth0",
    "hosts, the address": "fe80::1%eth0",
    "mode": "nat",
}


def quoted(text: str) -> str:
    """Return TEXT as a TOML string; TOML cannot have half a pair of surrogates."""
    return json.dumps(text.replace("\ud800", "\ufffe"))


@pytest.mark.parametrize("place", FIELDS)
def test_no_string_of_a_configuration_brings_a_line_of_its_own(place: str) -> None:
    forms = ("{0}{1}{2}", "{0}%{1}{2}", "{1}{2}{0}", "{0}{1}")
    for form, char in itertools.product(forms, SMUGGLED):
        typed = form.format(WELL.get(place, "a"), char, TAIL)
        with pytest.raises(ConfigError):
            parse.parse(FIELDS[place].replace("%s", quoted(typed)), "c.toml")


@pytest.mark.parametrize("char", [*SMUGGLED, "%x\n", ",", "#", " ", '"'], ids=ascii)
@pytest.mark.parametrize(
    "rule", ["tcp:[fe80::1{}]:2222-:22", "tcp::2222-[fd00::5{}]:22", "tcp:10.0.0.1{}:22-:22"]
)
def test_no_address_of_a_forward_does(char: str, rule: str) -> None:
    with pytest.raises(ValueError, match="Invalid host forwarding rule"):
        hostfwd.parse(rule.format(char))


def test_addresses_are_written_as_they_were_understood() -> None:
    assert addresses.read("2001:DB8:0:0::1") == "2001:db8::1"
    assert addresses.read("fe80::1%eth0", scoped=True) == "fe80::1%eth0"
    for wrong in ("fe80::1%eth0", "192.0.2.1%eth0", "2001:db8::1%", "", "1"):
        with pytest.raises(ValueError, match=r"by %|does not appear"):
            addresses.read(wrong)
    for wrong in ("fe80::1%", "fe80::1%a b", "fe80::1%a#b", "fe80::1%a%b", "2001:db8::1%eth0"):
        with pytest.raises(ValueError, match="%"):
            addresses.read(wrong, scoped=True)


@pytest.mark.parametrize("name", ["192.0.2.7", "3600", "1.2"])
def test_a_host_is_not_called_what_dnsmasq_takes_for_an_address_or_a_time(name: str) -> None:
    with pytest.raises(ConfigError, match="no host name"):
        parse.parse(f"[networks.a]\nmode='nat'\nhosts = {{'{name}' = '192.0.2.1'}}", "c.toml")


@pytest.mark.parametrize(
    "line",
    [
        *("conf-dir=/run/harm", "dhcp-script=/run/harm", "conf-file=/x", "addn-hosts=/etc/shadow"),
        *("log-facility=/etc/passwd", "dhcp-leasefile=/etc/passwd", "pid-file=/x", "user=root"),
        *(
            "tftp-unique-root=mac",
            "tftp-root=/a,eth0\nx",
            "dhcp-luascript=/x",
            "hostsdir=/x",
            "resolv-file=/a b",
        ),
        *('interface="a"', "interface=a\\nb", "interface=a\rconf-dir=/x", "#conf", ""),
    ],
)
def test_dnsmasq_is_told_nothing_that_runs_or_writes(line: str) -> None:
    with pytest.raises(HostError):
        plain_text.dnsmasq(f"interface=br0\n{line}\n")
    assert plain_text.dnsmasq("interface=br0\n# no IPv6: x (y)\n").startswith("interface")


@pytest.mark.parametrize("char", SMUGGLED, ids=ascii)
def test_what_is_composed_is_looked_at_once_more(char: str) -> None:
    with pytest.raises(HostError):
        plain_text.joined([f"interface=br0{char}dhcp-script=/x"])
    with pytest.raises(HostError):
        plain_text.lease_words(["52:54:00:00:00:01", f"web{char}"])
    with pytest.raises(HostError):
        dbus._string(f"br0{char}")
    if char not in ("\n", "\r\n"):  # which a file of several lines has
        with pytest.raises(HostError):
            network_managers.MANAGERS[network_managers.NETWORKD].text_of(f"br0{char}")


def test_one_guest_is_one_guest() -> None:
    mac = "52:54:00:00:00:01"
    assert plain_text.lease_words([mac, "10.0.0.2", "[fd00::2]", "web"]).endswith(",[fd00::2],web")
    for more in ("web,ignore", "a b"):
        with pytest.raises(HostError):
            plain_text.lease_words([mac, more])


@pytest.mark.parametrize("name", ["*", "!x", "a;b", "a b", "~x", "a?", "[a]", "a\\b", "a,b", "a=b"])
def test_a_managers_file_names_no_pattern(name: str) -> None:
    assert not network_managers.can_name(name)
    assert network_managers.can_name("br-0.7_x")
    assert network_managers.can_name("3br")


def test_what_a_network_needs_passes() -> None:
    text = """
        [networks.a]
        mode = "nat"
        subnet = "10.0.0.0/24"
        dns = ["192.0.2.53", "2001:DB8::53", "fe80::53%eth0"]
        hosts = { files = "192.0.2.9", "a.b" = "2001:db8::9" }
        addresses = { web = "10.0.0.9" }
    """
    (network,) = parse.parse(text, "c.toml").networks
    assert reservations.fault(network) == ""
    made = network_resources(network, NetworkFacts())
    (server,) = (each for each in made if isinstance(each, DnsmasqServer))
    assert plain_text.dnsmasq(server.config) == server.config
    assert "server=fe80::53%eth0\n" in server.config
    assert "server=2001:db8::53\n" in server.config
    assert any(isinstance(each, NetworkChains) for each in made)
