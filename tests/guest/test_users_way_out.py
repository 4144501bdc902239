"""An ordinary user's guests when what leads to them and out of their network has died."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from guest.shell import Shell, page
from lab.netns import UPLINK_ADDRESS, WEB_BODY, wait_for
from lab.tool import netwrap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.netns import Uplinked
    from lab.user import User

NIC = "nat,model=virtio"
WEB = "http://www.example.test/"
WEB6 = "http://[2001:db8:80::80]/"
PROGRAMS = ("slirp4netns ", "pasta ")


def kill(user: User, pids: Iterable[int]) -> None:
    """Kill processes, and wait for their end."""
    victims = list(pids)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(victims) & set(user.processes()), "their end")


def found(user: User, part: str, number: int) -> list[int]:
    """Return the processes with PART in their command line, once they are NUMBER.

    What a launch leaves behind comes after its QEMU: a keeper shows the launch's words until then.
    """
    pids: list[int] = []

    def are_there() -> bool:
        pids[:] = [pid for pid, cmd in user.processes().items() if part in cmd]
        return len(pids) == number

    wait_for(are_there, f"{number} of {part!r}")
    return pids


def test_who_joins_puts_the_way_out_back(user: User) -> None:
    """Where the warden, which would do that at once, has died too."""
    with Shell(user, "-nic", NIC, name="one") as one:
        assert one.get(WEB) == WEB_BODY
        kill(user, found(user, "runtime/warden.py", 1))
        kill(user, (pid for pid, cmd in user.processes().items() if cmd.startswith(PROGRAMS)))
        told = netwrap(user, "ps", check=True).stdout
        assert "network nat: the program that led out has died: guests are cut off" in told
        with Shell(user, "-nic", NIC, name="two") as two:
            assert two.get(WEB) == WEB_BODY
            assert one.get(WEB) == WEB_BODY
            assert one.get("http://two/") == "two\n"
            (network,) = json.loads(netwrap(user, "ps", "--json", check=True).stdout)["networks"]
            assert network["way_out"]
    netwrap(user, "wait", check=True)


def test_guests_reach_all_again_when_the_first_run_is_ended_with_all(
    user: User, uplinked: Uplinked
) -> None:
    """As systemd ends a unit: the way out and dnsmasq of both are among what the first started."""
    with Shell(user, "-nic", f"{NIC},hostfwd=tcp::8080-:80", name="one") as one:
        one.wait_report("ready")
        of_one = list(user.processes())
        with Shell(user, "-nic", f"{NIC},hostfwd=tcp::8081-:80", name="two") as two:
            assert two.get(WEB) == WEB_BODY
            assert two.get("http://one/") == "one\n"
            kill(user, of_one)
            assert two.get(WEB) == WEB_BODY
            assert page(uplinked.net, f"{UPLINK_ADDRESS}:8081") == "two\n"
            with Shell(user, "-nic", f"{NIC},hostfwd=tcp::8080-:80", name="three") as three:
                assert three.get("http://two/") == "two\n"
                assert two.get("http://three/") == "three\n"
                assert page(uplinked.net, f"{UPLINK_ADDRESS}:8080") == "three\n"
    netwrap(user, "wait", check=True)


def test_forwards_lead_again_when_their_relays_have_died(user: User, uplinked: Uplinked) -> None:
    with (
        Shell(user, "-nic", f"{NIC},hostfwd=tcp::8080-:80", name="one") as one,
        Shell(user, "-nic", f"{NIC},hostfwd=tcp::8081-:80", name="two") as two,
    ):
        for guest in (one, two):
            guest.wait_report("ready")
        kill(user, found(user, "-- qemu-system", 2))
        for port, name in ((8080, "one"), (8081, "two")):
            user.host.wait_listening("tcp", port)
            for host, address in ((uplinked.net, UPLINK_ADDRESS), (user.host, "127.0.0.1")):
                assert page(host, f"{address}:{port}") == f"{name}\n"
    netwrap(user, "wait", check=True)


def test_ipv6_leads_out_again(user6: User) -> None:
    with Shell(user6, "-nic", NIC, name="one") as one:
        assert one.ask(f"try 150 wget -qO- {WEB6}") == WEB_BODY
        kill(user6, (pid for pid, cmd in user6.processes().items() if cmd.startswith(PROGRAMS)))
        assert one.ask(f"try 150 wget -qO- {WEB6}") == WEB_BODY
        assert one.get(WEB) == WEB_BODY
    netwrap(user6, "wait", check=True)
