"""Whatever a configuration says, nft and dnsmasq get nothing but what we mean to tell them."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_netwrap.config import parse
from qemu_netwrap.errors import ConfigError, HostError
from qemu_netwrap.model.host import NetworkFacts, Route
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.network import HOST_ONLY, NAT
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.nftables import NetworkChains

TEXT = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True),
    st.sampled_from(
        ['x" drop; accept', "a\nserver=1.2.3.4", "x }; chain y {", "a#b", "$(x)", "`x`"]
    ),
)
QUOTED = re.compile(r'"[^"]*"')
PLAIN = re.compile(r"[a-z0-9 !={},./;_-]*")
DNSMASQ = re.compile(r"[a-z-]+(=[A-Za-z0-9./:,!_-]+)?")


@given(TEXT, TEXT, TEXT, TEXT, st.sampled_from([NAT, HOST_ONLY]))
@settings(max_examples=300)
def test_no_word_of_a_configuration_reaches_another_language(
    name: str, bridge: str, server: str, uplink: str, mode: str
) -> None:
    quoted = {
        key: json.dumps(text, ensure_ascii=True)
        for key, text in {"name": name, "bridge": bridge, "server": server}.items()
    }
    dns = f"dns = [{quoted['server']}]" if mode == NAT and server else ""
    lines = (
        f"[networks.{quoted['name']}]",
        f'mode = "{mode}"',
        f"bridge = {quoted['bridge']}",
        dns,
    )
    text = "\n".join(lines)
    try:
        (network,) = parse.parse(text, "c.toml").networks
        route = Route(Subnet.parse("0.0.0.0/0"), uplink)
        made = network_resources(network, NetworkFacts(routes=(route,)))
    except (ConfigError, HostError):
        return
    for resource in made:
        if isinstance(resource, NetworkChains):
            known = {bridge, uplink, f"qemu-netwrap: {name}", "bridge"}  # a kind of interface
            assert {word[1:-1] for word in QUOTED.findall(resource.rules)} <= known
            for line in resource.rules.replace(bridge, "bridge").split("\n"):
                assert PLAIN.fullmatch(QUOTED.sub("", line)), line
        elif isinstance(resource, DnsmasqServer):
            assert all(DNSMASQ.fullmatch(line) for line in resource.config.split("\n")[:-1])
