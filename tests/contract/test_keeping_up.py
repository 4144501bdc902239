"""Networks kept up without a run: by whatever crash, up and told, or gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract.acting import Actor, dies
from lab.chance import SOAK, steps
from lab.leaks import snapshot, wait_same

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.netns import Host

    Actors = Callable[[], Actor]

LAB: dict[str, Any] = {"name": "lab", "mode": "nat", "bridge": "qn-lab"}
LAN: dict[str, Any] = {"name": "lan", "mode": "bridge", "bridge": "qn-lan"}
WHOLE = """
ip address show qn-lab | grep -q 'inet '
nft list table inet qemu_netwrap | grep -q masquerade
cd /run/qemu-netwrap/*/networks/qn-lab
test -e members/-kept
kill -0 "$(cat dnsmasq.pid)"
"""


def is_kept(host: Host) -> bool:
    """Whether a member that is no run is there."""
    return host.run("sh", "-c", "test -e /run/qemu-netwrap/*/networks/qn-lab/members/-kept",
                    check=False).returncode == 0  # fmt: skip


@pytest.mark.parametrize("network", [LAB, LAN, {**LAB, "mode": "host-only"}])
def test_kept_until_it_is_let_go(routed: Host, actors: Actors, network: dict[str, Any]) -> None:
    before, actor, other = snapshot(routed), actors(), actors()
    assert actor.pin(**network)["errors"] == []
    actor.kill()  # whoever said so has gone
    up = snapshot(routed)
    assert other.collect()["released"] == []
    assert other.join("1", **network)["errors"] == []
    assert other.end("1")["errors"] == []
    wait_same(routed, up)
    assert other.unpin(network["bridge"])["dropped"] == {"was_kept": True, "members": []}
    other.kill()
    wait_same(routed, before)


def test_let_go_while_a_run_uses_it(routed: Host, actors: Actors) -> None:
    """The run keeps it, and takes it down."""
    before, actor = snapshot(routed), actors()
    actor.pin(**LAB)
    actor.join("1", **LAB)
    assert actor.unpin("qn-lab")["dropped"] == {"was_kept": True, "members": ["1"]}
    assert actor.unpin("qn-lab")["dropped"] == {"was_kept": False, "members": ["1"]}
    routed.sh("ip link show qn-lab")
    assert actor.end("1")["errors"] == []
    actor.kill()
    wait_same(routed, before)


def test_keeping_up_what_runs_use_already(routed: Host, actors: Actors) -> None:
    before, actor = snapshot(routed), actors()
    actor.join("1", **LAB)
    index = routed.sh("cat /sys/class/net/qn-lab/ifindex")
    assert actor.pin(**LAB)["errors"] == []
    assert actor.pin(**LAB)["errors"] == []
    assert actor.end("1")["errors"] == []
    assert routed.sh("cat /sys/class/net/qn-lab/ifindex") == index
    routed.sh(WHOLE)
    actor.unpin("qn-lab")
    actor.kill()
    wait_same(routed, before)


def test_a_bridge_of_somebody_else_is_not_kept(routed: Host, actors: Actors) -> None:
    routed.sh("ip link add qn-lan type bridge")
    before, actor = snapshot(routed), actors()
    assert actor.pin(**LAN)["errors"] == []
    actor.kill()
    wait_same(routed, before)
    routed.sh("ip link del qn-lan")


def test_what_cannot_be_made_leaves_nothing(routed: Host, actors: Actors) -> None:
    routed.sh("ip link add qn-lab type bridge")
    before, actor = snapshot(routed), actors()
    assert "qn-lab" in actor.pin(**LAB)["errors"][0]
    actor.kill()
    wait_same(routed, before)
    routed.sh("ip link del qn-lab")


def test_crash_at_every_step_of_keeping_up(routed: Host, actors: Actors) -> None:
    """It is up, whole and kept, or the next one to look makes that there is nothing."""
    other = actors()
    before, outcomes = snapshot(routed), []
    for step in steps(200, "keeping up"):
        actor = actors()
        died = dies(actor.pin, **LAB, die=step)
        actor.kill()
        assert other.collect()["errors"] == []
        outcomes.append(is_kept(routed))
        if outcomes[-1]:
            routed.sh(WHOLE)
            assert other.unpin("qn-lab")["errors"] == []
        wait_same(routed, before)
        if not died:
            break
    assert outcomes == sorted(outcomes), "once kept, it stays kept"
    assert outcomes.count(False) > (15 if SOAK else 2)
    if SOAK:  # a sample may have no other than the step behind the last one
        assert outcomes.count(True) > 1


def test_crash_at_every_step_of_letting_go(routed: Host, actors: Actors) -> None:
    other = actors()
    before, outcomes = snapshot(routed), []
    for step in steps(200, "letting go"):
        actor = actors()
        assert other.pin(**LAB)["errors"] == []
        died = dies(actor.unpin, "qn-lab", die=step)
        actor.kill()
        assert other.collect()["errors"] == []
        outcomes.append(is_kept(routed))
        if outcomes[-1]:
            routed.sh(WHOLE)
            assert other.unpin("qn-lab")["errors"] == []
        wait_same(routed, before)
        if not died:
            break
    assert outcomes == sorted(outcomes, reverse=True), "once let go, it goes"
    assert outcomes.count(False) > (10 if SOAK else 1)
    assert outcomes.count(True) > (1 if SOAK else 0)
