"""Output of the commands: plans and states, as text for users or as plain data for JSON."""

from __future__ import annotations

import shlex
from typing import Any

from qemu_netwrap.cli.tables import columns
from qemu_netwrap.linux.hook_files import Hook
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import Prefix
from qemu_netwrap.record import Record
from qemu_netwrap.runtime.preview import NetworkPlan, Preview
from qemu_netwrap.runtime.status import NetworkStatus, RunStatus
from qemu_netwrap.runtime.users_runs import Look

_RUN_HEAD = ("RUN", "NAME", "STATE", "PID", "UPTIME", "CPU", "MEMORY")
_NIC_HEAD = ("RUN", "NIC", "NETWORK", "MAC", "ADDRESS")
_FORWARD_HEAD = ("RUN", "HOST", "GUEST")
_NETWORK_HEAD = ("NETWORK", "MODE", "BRIDGE", "RUNS", "KEPT", "DNSMASQ", "ADDRESS")


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return records, and tuples of them, as dicts and lists; subnets as text."""
    if isinstance(value, (Subnet, Prefix)):
        return str(value)
    if isinstance(value, Record):
        return {name: plain(inner) for name, inner in value.__dict__.items()}
    if isinstance(value, (tuple, list)):
        return [plain(inner) for inner in value]
    return value


def plan_data(shown: Preview) -> dict[str, Any]:
    """Return a plan as data for JSON."""
    steps = [
        {
            "kind": step.resource.kind,
            **plain(step.resource),
            "do": step.do,
            "undo": step.undo,
        }
        for step in shown.steps
    ]
    networks = [
        {
            "name": n.network.name,
            "mode": n.network.mode,
            "bridge": n.network.bridge,
            "address": n.address,
            "address6": n.address6,
            "action": n.action,
        }
        for n in shown.networks
    ]
    nics = []
    for nic in shown.nics:
        fields = {**plain(nic), "network": nic.network.name}
        del fields["mac_key"]  # MACs are derived from this key: it stays internal
        nics.append(fields)
    found = {"networks": networks, "nics": nics, "steps": steps, "argv": shown.argv}
    return {**found, "notes": shown.notes} if shown.notes else found


def plan_text(shown: Preview) -> str:
    """Return a plan as text."""
    if not shown.steps:
        nothing = "nothing to set up; QEMU gets its options unchanged:"
        return "\n".join((*shown.notes, nothing, f"  {shlex.join(shown.argv)}"))
    do = [command for step in shown.steps for command in step.do]
    undo = [command for step in reversed(shown.steps) for command in step.undo]
    lines = [
        *map(_network_line, shown.networks), *shown.notes,
        "", "do:", *_indented(do),
        "", "undo, when QEMU is gone; a network with its last run:", *_indented(undo),
        "", "QEMU becomes:", f"  {shlex.join(shown.argv)}",
    ]  # fmt: skip
    return "\n".join(lines)


def _network_line(shown: NetworkPlan) -> str:
    """Return a line that says what the launch does with a network."""
    network = shown.network
    where = " ".join(filter(None, (network.bridge, shown.address, shown.address6)))
    return f"network {network.name} ({network.mode}, {where}): {shown.action}"


def ps_data(looks: list[Look], *, users: bool) -> dict[str, Any]:
    """Return runs and networks as data for JSON; with USERS each tells whose it is."""
    found: dict[str, Any] = {"runs": [], "networks": []}
    for look in looks:
        whose = {"user": look.user} if users else {}
        found["runs"] += [{**whose, **plain(run)} for run in look.runs]
        found["networks"] += [{**whose, **plain(network)} for network in look.networks]
    faults = [{"user": look.user, "fault": look.fault} for look in looks if look.fault]
    return {**found, "faults": faults} if users else found


def ps_text(looks: list[Look], *, users: bool) -> str:
    """Return runs and networks as tables, with their faults; with USERS each tells whose it is."""
    runs = [(look.user, run) for look in looks for run in look.runs]
    networks = [(look.user, network) for look in looks for network in look.networks]
    tables = (
        (_RUN_HEAD, [(user, *_run_row(run)) for user, run in runs]),
        (_NIC_HEAD, [(user, *row) for user, run in runs for row in _nic_rows(run)]),
        (_FORWARD_HEAD, [(user, *row) for user, run in runs for row in _forward_rows(run)]),
        (_NETWORK_HEAD, [(user, *_network_row(network)) for user, network in networks]),
    )
    first = 0 if users else 1
    blocks = [
        columns([row[first:] for row in (("USER", *head), *rows)]) for head, rows in tables if rows
    ]
    faults = [(user, f"run {r.run}: {fault}") for user, r in runs for fault in r.faults]
    faults += [(u, f"network {n.name or n.bridge}: {f}") for u, n in networks for f in n.faults]
    faults += [(look.user, look.fault) for look in looks if look.fault]
    if faults:
        blocks.append("\n".join(f"{u}: {f}" if users else f for u, f in faults))
    return "\n\n".join(blocks) or "nothing runs"


def hooks_text(hooks: list[Hook]) -> str:
    """Return the scripts that QEMU calls by default, one a line with its state."""
    kept = (f" (the former script is {hook.saved})" if hook.saved else "" for hook in hooks)
    return "\n".join(f"{h.path}: {h.state}{more}" for h, more in zip(hooks, kept, strict=True))


def _run_row(run: RunStatus) -> tuple[str, ...]:
    """Return a run's row."""
    return (
        run.run,
        run.name or "-",
        run.state,
        str(run.pid or "-"),
        _duration(run.uptime),
        f"{run.cpu:.1f}s",
        f"{run.memory / 1048576:.0f}M",
    )


def _nic_rows(run: RunStatus) -> list[tuple[str, ...]]:
    """Return a row for each of a run's NICs: its taps and its devices of the host."""
    return [
        *(
            (run.run, n.tap, n.network, ",".join(n.macs) or "-", "\n".join(n.addresses) or "-")
            for n in run.nics
        ),
        *((run.run, d.bdf, d.pf or "-", d.mac or "-", "-") for d in run.devices),
    ]


def _forward_rows(run: RunStatus) -> list[tuple[str, ...]]:
    """Return a row for each port of the host that is forwarded to a run's guest."""
    return [
        (run.run, f"{f.protocol} {f.host or '*'}:{f.port}", f"{f.guest}:{f.guest_port}")
        for nic in run.nics
        for f in nic.forwards
    ]


def _network_row(network: NetworkStatus) -> tuple[str, ...]:
    """Return a network's row."""
    return (
        network.name,
        network.mode,
        network.bridge,
        str(len(network.members)),
        "yes" if network.kept else "-",
        str(network.dnsmasq or "-"),
        "\n".join(filter(None, (network.address, network.address6))) or "-",
    )


def _duration(seconds: float) -> str:
    """Return a time in seconds as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _indented(commands: list[str]) -> list[str]:
    """Return commands as indented lines; a command may have several."""
    return [f"  {line}" for command in commands for line in command.split("\n")]
