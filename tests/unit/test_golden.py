"""Golden folders: QEMU's words, a configuration and a host, and what is planned for them.

A folder under golden/ is a case:

    argv          the words, one a line, the program first
    config.toml   the configuration, if there is one
    *.cfg         the files that -readconfig names in the words, if there are any
    host.json     what differs from a host with nothing on it, and --network (see `Host`)

and its outcome is one of

    plan.json     networks with the resources that making them takes, NICs, and QEMU's new words
    unchanged     empty: QEMU gets its words as they are, and nothing is provisioned
    error         the message, and the hint below it

GOLDEN=write makes the outcomes anew: read every difference before it is committed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypedDict

import pytest

from qemu_netwrap.config import parse as configuration
from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.model.host import NetworkFacts, Route, UplinkCandidate
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import Ipv6Facts, Prefix, Route6
from qemu_netwrap.model.network import MODES, Config, Network
from qemu_netwrap.model.run import TapDescriptors, TapRequest
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.qemu import command_line, readconfig
from qemu_netwrap.qemu.network_options import interpret
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.nftables import NetworkChains
from qemu_netwrap.runtime import plan

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir())
OUTCOMES = ("plan.json", "unchanged", "error")
RUN = "4242"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources.base import Resource


class Host(TypedDict, total=False):
    existing: list[str]  # interfaces that are there, other than bridges
    bridge_exists: list[str]  # bridges that are there
    host_bridge: str  # the bridge that carries the default route
    routes: list[str]  # "192.168.1.0/24 eth0"
    routers: list[str]  # devices that forward already
    mtu: int  # of the default route's device
    ipv6: dict[str, Any]  # of the host's IPv6 (see `Ipv6Facts`); routes as above
    network: str  # --network
    agreed: bool  # --yes-uplink
    uplink: dict[str, str | int | bool | list[str]]  # what the uplink is (see `UplinkCandidate`)
    in_full: bool  # show every field of the resources


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    folder = GOLDEN / case
    outcome = outcome_of(folder)
    if os.environ.get("GOLDEN") == "write":
        for name in OUTCOMES:
            (folder / name).unlink(missing_ok=True)
        for name, text in outcome.items():
            (folder / name).write_text(text)
    recorded = {name: (folder / name) for name in OUTCOMES if (folder / name).exists()}
    assert outcome == {name: path.read_text() for name, path in recorded.items()}


def test_every_outcome_and_every_backend_has_a_case() -> None:
    assert [name for name in OUTCOMES if not list(GOLDEN.glob(f"*/{name}"))] == []
    plans = "".join(path.read_text() for path in GOLDEN.glob("*/plan.json"))
    assert [mode for mode in MODES if f'"mode": "{mode}"' not in plans] == []


def outcome_of(folder: Path) -> dict[str, str]:
    """The outcome's file and its text."""
    argv = tuple((folder / "argv").read_text().split("\n")[:-1])
    host: Host = json.loads(read(folder / "host.json") or "{}")
    toml = read(folder / "config.toml")
    config = configuration.parse(toml, "config.toml") if toml else Config()
    try:
        planned = planned_for(folder, command_line.parse(argv), config, host)
        if planned is None:
            return {"unchanged": ""}
        return {"plan.json": json.dumps(shown(planned, config, host), indent=2) + "\n"}
    except NetwrapError as error:
        return {"error": f"{error.message}\n{error.hint}\n"}


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def planned_for(
    folder: Path, line: command_line.CommandLine, config: Config, host: Host
) -> plan.Plan | None:
    """The plan, made as a launch makes it; None when there is nothing to do."""
    files = {
        option.at: readconfig.parse(option.value or "", (folder / (option.value or "")).read_text())
        for option in line.named("readconfig")
        if (folder / (option.value or "")).exists()
    }
    reading = interpret(line, files)
    if reading is None:
        return None
    chosen = host.get("network", "")
    asked = plan.questions(reading, config, chosen)
    there = (*host.get("existing", ()), *host.get("bridge_exists", ()))
    facts = plan.Facts(
        RUN,
        "machine",
        tuple(name for name in asked.ifnames if name in there),
        host.get("host_bridge", "") if asked.host_bridge else "",
        agreed=host.get("agreed", False),
    )
    planned = plan.make(reading, config, facts, chosen)
    return planned if planned.nics else None


def shown(planned: plan.Plan, config: Config, host: Host) -> dict[str, object]:
    grants = {p.nic.tap: placeholder(p.nic) for p in planned.nics}
    rewritten = planned.rewritten(grants)
    texts = {planned.files[at].path: text.split("\n") for at, text in rewritten.files.items()}
    files = {"files": texts} if texts else {}
    notes = {"notes": planned.notes} if planned.notes else {}
    return {
        "guest": planned.guest,
        "networks": [
            {
                "name": network.name,
                "mode": network.mode,
                "bridge": network.bridge,
                "resources": [
                    resource_shown(resource, in_full=host.get("in_full", False))
                    for resource in resources_of(network, config, host)
                ],
            }
            for network in planned.wanted.networks
        ],
        "nics": [
            {
                "label": nic.label,
                "network": nic.network.name,
                "tap": nic.tap,
                "macs": nic.macs,
                "queues": nic.queues,
                "vhost": nic.vhost,
                "vnet_hdr": nic.vnet_hdr,
                **({} if nic.is_alone else {"is_alone": False}),
                **({"forwards": list(map(str, nic.forwards))} if nic.forwards else {}),
            }
            for nic in (p.nic for p in planned.nics)
        ],
        "argv": rewritten.words({at: f"<{planned.files[at].path}>" for at in rewritten.files}),
        **files,
        **notes,
    }


def resources_of(network: Network, config: Config, host: Host) -> tuple[Resource, ...]:
    routes = (route.split() for route in host.get("routes", ()))
    around = NetworkFacts(
        bridge_exists=network.bridge in host.get("bridge_exists", ()),
        routes=tuple(Route(Subnet.parse(subnet), device) for subnet, device in routes),
        routers=tuple(host.get("routers", ())),
        machine="machine",
        reserved=tuple(n.subnet for n in config.networks if n.subnet is not None),
        mtu=host.get("mtu", 0),
        ipv6=around6(network, host),
        uplink=candidate(network.uplink, host),
    )
    return network_resources(network, around)


def around6(network: Network, host: Host) -> Ipv6Facts | None:
    """The host's IPv6: none that anybody asks for, unless the case tells of it."""
    if "ipv6" not in host or not network.ipv6:
        return None
    fields: dict[str, Any] = {**host["ipv6"]}
    routes = (route.split() for route in fields.pop("routes", ()))
    for name in ("routers", "listeners"):
        fields[name] = tuple(fields.get(name, ()))
    return Ipv6Facts(routes=tuple(Route6(Prefix.parse(p), d) for p, d in routes), **fields)


def candidate(name: str, host: Host) -> UplinkCandidate | None:
    """The NIC that is to be an uplink: not there unless the case tells of it."""
    fields: dict[str, Any] = {**host.get("uplink", {"exists": False})}
    fields["addresses"] = tuple(fields.get("addresses", ()))
    return UplinkCandidate(name, **fields) if name else None


def resource_shown(resource: Resource, *, in_full: bool) -> object:
    """A resource on one line; in full if asked for, and then of text with many lines, these."""
    kind = type(resource).__name__
    if isinstance(resource, (NetworkChains, DnsmasqServer)):
        text = resource.rules if isinstance(resource, NetworkChains) else resource.config
        return {f"{kind} {resource.bridge}": text.splitlines()} if in_full else kind
    if in_full:
        return resource.to_line().replace("\t", " ")
    return " ".join([kind, *map(str, list(resource.__dict__.values())[:2])])


def placeholder(nic: TapRequest) -> TapDescriptors:
    """What stands for descriptors, whose numbers are the kernel's to choose."""
    queues = range(nic.queues)
    return TapDescriptors(
        tuple(f"<{nic.tap}.{queue}>" for queue in queues),
        tuple(f"<vhost.{queue}>" for queue in queues) if nic.vhost else (),
        tuple(given or nic.own_mac(number) for number, given in enumerate(nic.macs)),
    )
