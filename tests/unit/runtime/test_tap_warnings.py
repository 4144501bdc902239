"""What is foreseen of netdevs that QEMU sets up, and what is suggested for a slip."""

from __future__ import annotations

import pytest

from qemu_netwrap.model.suggest import suggestion
from qemu_netwrap.qemu import bridge_conf, netdev_options
from qemu_netwrap.qemu.command_line import Option
from qemu_netwrap.runtime.tap_warnings import IFF_MULTI_QUEUE, IFF_TAP, TapFacts, warnings

MANY = IFF_TAP | IFF_MULTI_QUEUE


def foreseen(text: str, **seen: object) -> str:
    net = netdev_options.parse(Option("netdev", 1, text))
    assert net is not None
    sight = TapFacts(uid=1000, privileged=False).replace(
        is_there=True, tun_flags=IFF_TAP, owner=1000
    )
    return "; ".join(warnings(net, sight.replace(**seen)))


@pytest.mark.parametrize(
    ("text", "seen", "says"),
    [
        ("tap,ifname=t", {}, ""),
        ("tap,ifname=t", {"tun_flags": None, "is_macvtap": True}, ""),
        ("tap,ifname=t", {"owner": -1}, ""),
        ("tap,ifname=t", {"owner": 7, "privileged": True}, ""),
        ("tap,ifname=t", {"holder": "x", "is_there": False, "privileged": True}, ""),
        ("tap,ifname=t,queues=2", {"holder": "x", "tun_flags": MANY}, ""),
        ("tap,ifname=t,queues=2", {}, "leave out queues="),
        (
            "tap,ifname=t",
            {"tun_flags": None, "is_macvtap": True, "opens_macvtap": False},
            "t is a macvtap, which QEMU opens by its name since 10.0",
        ),
        ("tap,ifname=t,vhost=on", {"no_vhost": "modprobe vhost_net"}, "modprobe vhost_net"),
        ("tap,ifname=t,vhost=off", {"no_vhost": "gone"}, ""),
        ("tap,ifname=t,vhostforce=on", {"no_vhost": "gone"}, "leave out vhost=on; gone"),
        ("tap,fd=3,vhost=y", {"no_vhost": "gone"}, "leave out vhost=on; gone"),
        ("tap,fd=3,vhostfd=4", {"no_vhost": "gone"}, ""),
        ("tap,fd=3", {"no_tun": "gone"}, ""),
        ("tap,helper=/h", {"no_tun": "gone"}, ""),
        ("tap,script=/x", {"no_tun": "gone", "is_there": False}, "/dev/net/tun: gone"),
        ("tap,script=/x", {"is_there": False}, "only root makes a tap"),
        ("tap,script=/x", {"is_there": False, "privileged": True}, ""),
        ("tap,ifname=t,br=br0", {}, "QEMU ignores br= without helper="),
        ("tap,helper=/h,br=br0", {}, ""),
        ("tap,ifname=t", {"forbids_programs": True}, "without a message"),
        ("tap,ifname=t,script=/x", {"forbids_programs": True}, "without a message"),
        ("tap,ifname=t,script=no", {"forbids_programs": True}, ""),
        ("bridge,helper=/h", {"helper": "/h"}, ""),
        ("bridge,helper=/h", {"helper": "/h", "helper_may": False}, "chmod u+s /h"),
    ],
)
def test_foresight(text: str, seen: dict[str, object], says: str) -> None:
    found = foreseen(text, **seen)
    assert says in found
    assert bool(says) == bool(found)


RULES = "# allow br0\n\nallow br0\nallow br1 \ndeny br1\n\tallow\tbr3\n"


@pytest.mark.parametrize(
    ("text", "bridge", "says"),
    [
        (RULES, "br0", "allow"), (RULES, "br1", "deny"), (RULES, "br2", ""),
        (RULES, "br3", "allow"),
        ("allow all\ndeny br2\n", "br0", "allow"), ("allow all\ndeny br2\n", "br2", "deny"),
        ("allow br0\nallow\nallow br1\n", "br1", ""),
    ],
)  # fmt: skip
def test_bridge_conf(text: str, bridge: str, says: str) -> None:
    assert bridge_conf.verdict(bridge_conf.parse(text).rules, bridge) == says


@pytest.mark.parametrize(
    ("word", "meant"),
    [("pz", "ps"), ("--netwrok", "--network"), ("ofice", "office"), ("natt", "nat"), ("qq", "")],
)
def test_suggestions(word: str, meant: str) -> None:
    known = ["ps", "stop", "--network", "--debug", "office", "nat", "host-only"]
    assert suggestion(word, known) == (f"did you mean {meant}? " if meant else "")
