"""A MAC, or a guest's name, that more than one run claims: a living run keeps what it has."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from lab.netns import wait_for
from lab.standin import StandIn
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.netns import Host

MAC: Final = "52:54:00:00:00:77"
OTHER: Final = "52:54:00:00:00:88"
NIC: Final = ("-nic", f"host-only,mac={MAC}")
STATE: Final = "/run/qemu-netwrap/*"


def at(host: Host, mac: str = MAC, bridge: str = "qn-host-only") -> str:
    """The ports that a bridge has a sticky entry of a MAC at."""
    lines = host.run("bridge", "fdb", "show", "br", bridge).stdout.splitlines()
    found = [line.split() for line in lines if line.startswith(mac) and "sticky" in line]
    return " ".join(words[words.index("dev") + 1] for words in found)


def name(host: Host, mac: str = MAC) -> str:
    """The name that dnsmasq is told for a MAC."""
    words = host.sh(f"cat {STATE}/networks/qn-host-only/hosts/{mac} 2>/dev/null || :").strip()
    (found,) = [word for word in words.split(",")[1:] if word.isalpha()] or [""]
    return found


def network(host: Host, bridge: str = "qn-host-only") -> dict[str, Any]:
    """What `ps` says of a network."""
    told = json.loads(netwrap(host, "ps", "--json", check=True).stdout)
    return next(each for each in told["networks"] if each["bridge"] == bridge)


def settle(host: Host, *runs: str) -> None:
    """Wait until these runs' teardown is over."""
    netwrap(host, "wait", *runs, check=True)


def launch(host: Host, *words: str) -> str:
    """Have `true` take QEMU's place for a moment; return what the launch says."""
    child = host.popen(COMMAND, "--", "/bin/true", *words, stderr=subprocess.PIPE)
    told = child.communicate()[1]
    assert child.returncode == 0
    settle(host, str(child.pid))
    return told


def test_the_last_comer_takes_nothing(host: Host) -> None:
    """Neither while it lives nor by its end."""
    with StandIn(host, "-name", "web", *NIC) as first:
        told = launch(host, *NIC)
        assert f"MAC {MAC} is in use by run {first.run} on qn-host-only, which keeps it" in told
        assert (at(host), name(host)) == (first.tap, "web")
        with StandIn(host, "-name", "web", *NIC):
            assert (at(host), name(host)) == (first.tap, "web")
        assert network(host)["faults"] == []
        assert "sticky" in host.run("bridge", "fdb", "show", "dev", first.tap).stdout
    settle(host)


@pytest.mark.parametrize("how", ["end", "gc"])
def test_the_next_one_gets_it_when_the_first_ends(host: Host, how: str) -> None:
    """From its keeper, or from who cleans up after a keeper that was killed."""
    with StandIn(host, "-name", "web", *NIC) as first, StandIn(host, "-name", "web", *NIC) as next_:
        if how == "gc":
            host.sh(f"fuser -sk {STATE}/runs/{first.run}/keeper")
        first.end()
        if how == "gc":
            netwrap(host, "gc", check=True)
        settle(host, first.run)
        assert (at(host), name(host)) == (next_.tap, "web")
        assert network(host)["faults"] == []
    settle(host)
    assert name(host) == ""


def test_one_mac_on_two_networks(host: Host) -> None:
    """They are strangers: each has it on its own, and the end of one is not the other's."""
    host.write(
        "/etc/qemu-netwrap/config.toml",
        '[networks.lab]\nmode = "host-only"\nbridge = "qn-lab"\n',
    )
    with StandIn(host, *NIC) as first:
        with StandIn(host, "-nic", f"tap,network=lab,mac={MAC}") as second:
            assert (at(host), at(host, bridge="qn-lab")) == (first.tap, second.tap)
        settle(host, second.run)
        assert at(host) == first.tap
        # A MAC in use is still told of, and not derived for another.
        assert f"run {first.run}" in launch(host, *NIC)
    settle(host)


def test_two_vms_of_one_name(host: Host) -> None:
    """The first has the name in DNS as long as it lives; then the other."""
    words = ("-name", "web", "-nic")
    with (
        StandIn(host, *words, f"host-only,mac={MAC}") as first,
        StandIn(host, *words, f"host-only,mac={OTHER}") as second,
    ):
        assert (name(host), name(host, OTHER)) == ("web", "")
        launch(host, *words, "host-only")
        assert name(host) == "web"
        first.end()
        settle(host, first.run)
        assert name(host, OTHER) == "web"
        assert "web: another run's guest on qn-host-only has that name" in second.end()
    settle(host)


def test_migration_beside_the_source(host: Host) -> None:
    """The derived MAC is the name's own; source and destination have it one after the other."""
    words = ("-name", "web", "-nic", "host-only")
    with StandIn(host, *words) as source:
        (own,) = json.loads(netwrap(host, "ps", "--json").stdout)["runs"][0]["nics"][0]["macs"]
        there = StandIn(host, *words, "-incoming", "tcp:127.0.0.1:4444", before=("-v",))
        with there:
            runs = json.loads(netwrap(host, "ps", "--json").stdout)["runs"]
            assert [run["nics"][0]["macs"] for run in runs] == [[own], [own]]
            assert (at(host, own), name(host, own)) == (source.tap, "web")
            source.end()
            settle(host, source.run)
            assert name(host, own) == "web"
            # A frame of the guest, and of one that has migrated here with another MAC.
            for mac in (own, OTHER):
                there.send(bytes.fromhex(f"ffffffffffff{mac.replace(':', '')}88b5") + bytes(46))
                fdb = ("bridge", "fdb", "show", "dev", there.tap)
                wait_for(lambda: mac in host.run(*fdb).stdout, "the bridge to learn")  # noqa: B023
        assert "no MAC filter, since -incoming may bring the guest another MAC" in there.told
    settle(host)


def test_a_snapshot_may_bring_another_mac(host: Host) -> None:
    words = ("-loadvm", "before", "-nic", "host-only")
    plan = netwrap(host, "plan", "--", "/bin/true", *words, check=True).stdout
    assert "no MAC filter, since -loadvm may bring the guest another MAC" in plan
    assert "learning off" not in plan
    with StandIn(host, *words) as run:
        run.send(bytes.fromhex(f"ffffffffffff{OTHER.replace(':', '')}88b5") + bytes(46))
        fdb = ("bridge", "fdb", "show", "dev", run.tap)
        wait_for(lambda: OTHER in host.run(*fdb).stdout, "the bridge to learn")
    settle(host)


@pytest.mark.parametrize("by", ["join", "release"])
def test_a_tap_that_takes_a_neighbours_mac(host: Host, by: str) -> None:
    """As a compromised QEMU can by a tap's descriptor alone: `ps` tells, and it is put right."""
    with (
        StandIn(host, *NIC) as victim,
        StandIn(host, "-nic", "host-only") as other,
        StandIn(host, "-nic", "host-only") as evil,
    ):
        evil.set_mac(MAC)
        faults = "\n".join(network(host)["faults"])
        assert f"{evil.tap} has the MAC {MAC}" in faults
        assert f"qemu-netwrap stop {evil.run}" in faults
        assert f"run {victim.run} is not reached: the bridge has lost its MAC {MAC}" in faults
        # Also when it has taken its own back.
        evil.set_mac("fe:54:00:00:00:01")
        assert at(host) == ""
        if by == "join":
            with StandIn(host, "-nic", "host-only"):
                wait_for(lambda: at(host) == victim.tap, "the entry")
        other.end()
        settle(host, other.run)
        assert at(host) == victim.tap
        assert network(host)["faults"] == []
    settle(host)


def test_a_qemu_of_run_as_cannot_take_a_mac(host: Host) -> None:
    """By whichever tap it has; it is refused, and the neighbour's entry stays."""
    before = ("--run-as", "nobody", "--keep-env", "PYTHONPATH")
    with StandIn(host, *NIC) as victim, StandIn(host, "-nic", "host-only", before=before) as evil:
        assert evil.ask("mac", MAC) == "refused"
        assert at(host) == victim.tap
        assert network(host)["faults"] == []
    settle(host)
