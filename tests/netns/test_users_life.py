"""An ordinary user's networks when what keeps them dies, and when they come and go at once."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from lab.chance import SOAK, sampled
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap, unhurried
from lab.user import User

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.fixtures import Watch
    from lab.netns import Host

NAT: Final = "nat"
LED: Final = f"{NAT},hostfwd=tcp::8080-:80"
STATE: Final = "/run/user/1000/qemu-netwrap"
RELAYS: Final = "*/runs/*/relay-*"

# What a user's run and network consist of, by their command lines.
PARTS: Final = {
    "qemu": f"^{QEMU} ",
    "keeper": r"^flock .*/runs/{run}\b",
    "warden": r"runtime/warden\.py",
    "way out": "^(slirp4netns|pasta) ",
    "dnsmasq": "dnsmasq .*--conf-file",
    "lookout": "^(sh -c head|head) |uplink_follower",
}
# A relay has the command line of what started it: files tell which process it is.
RELAY: Final = "relay"
VICTIMS: Final = (*PARTS, RELAY)
_PAIRS: Final = 4


HOLDER: Final = """
import socket, time
held = socket.create_server(("", 8080))
print("held", flush=True)
time.sleep(1000)
"""


def launch(user: User, nic: str = NAT) -> subprocess.Popen[str]:
    """Start an idle QEMU with a network; what it says is in its standard error."""
    words = (COMMAND, "-q", "--", QEMU, *IDLE, "-nic", nic)
    return user.popen(*words, stderr=subprocess.PIPE)


def ps(user: User) -> dict[str, Any]:
    """Return what `ps` tells."""
    told: dict[str, Any] = json.loads(netwrap(user, "ps", "--json", check=True).stdout)
    return told


def is_qemu(child: subprocess.Popen[str]) -> bool:
    """Whether a launcher has become QEMU."""
    return os.path.basename(os.readlink(f"/proc/{child.pid}/exe")).startswith("qemu-system")


def started(user: User, *nics: str) -> list[subprocess.Popen[str]]:
    """Start QEMUs, and return them when they all run, and their keepers sleep."""

    def has_failed(child: subprocess.Popen[str]) -> bool:
        return child.poll() is not None

    def sleeps(child: subprocess.Popen[str]) -> bool:
        return bool(part(user, "keeper", child.pid))

    children = [launch(user, each) for each in nics]
    # The last thing that a keeper does is to become flock(1).
    wait_for(lambda: any(map(has_failed, children)) or all(map(sleeps, children)), "the keepers")
    for child in children:
        assert not has_failed(child), child.communicate()
    return children


def part(user: User, name: str, run: int) -> list[int]:
    """Return the processes of a part; QEMU and the keeper are those of a run."""
    if name == "qemu":
        return [run]
    known = user.processes()
    told = [re.search(r"\tpid=(\d+)", text) for text in relay_files(user)]
    relays = known.keys() & {int(each[1]) for each in told if each}
    if name == RELAY:
        return sorted(relays)
    wanted = re.compile(PARTS[name].format(run=run))
    return [pid for pid, cmd in known.items() if wanted.search(cmd) and pid not in relays]


def relay_files(user: User) -> list[str]:
    """Return what is recorded of relays; look again if a run is released meanwhile."""
    state = Path(f"/proc/{user.host.pid}/root{STATE}")
    while True:
        try:
            return [file.read_text("utf-8") for file in state.glob(RELAYS)]
        except FileNotFoundError:
            continue


def kill(*pids: int) -> None:
    """Kill processes at once; some may have ended with others."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_all(user: User, *but: int) -> None:
    """Kill all processes of the user, BUT for some, and those that they start meanwhile.

    The lookout and the wardens are woken by others' ends, and may begin to put them back before
    they are killed themselves.
    """

    def are_gone() -> bool:
        others = set(user.processes()) - set(but)
        kill(*others)
        return not others

    wait_for(are_gone, "the end of the others")


def end(*children: subprocess.Popen[str]) -> None:
    """Kill QEMUs, and wait for their end."""
    for child in children:
        child.kill()
    for child in children:
        child.communicate(timeout=60)


def wait_ended(user: User, pids: Iterable[int]) -> None:
    """Wait until processes have ended."""
    wait_for(lambda: not set(pids) & set(user.processes()), "their end")


def wait_members(user: User, *children: subprocess.Popen[str]) -> None:
    """Wait until the network has these QEMUs' runs alone."""
    wanted = {str(child.pid) for child in children}
    wait_for(lambda: set(ps(user)["networks"][0]["members"]) == wanted, "the others' end")


def is_gone(user: User) -> bool:
    """Whether nothing of the user's networks is left."""
    state = Path(f"/proc/{user.host.pid}/root{STATE}")
    return not (user.processes() or state.exists())


def gc(user: User) -> None:
    """Run `gc`; then nothing may be left."""
    done = netwrap(user, "gc")
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
    wait_for(lambda: is_gone(user), f"the end of all: {user.processes()}")


def faults(user: User) -> list[str]:
    """Return the faults of the network that is up."""
    (network,) = ps(user)["networks"]
    found: list[str] = network["faults"]
    return found


def _combinations() -> list[tuple[str, ...]]:
    """Return every part, and a sample of the pairs."""
    pairs = list(itertools.combinations(VICTIMS, 2))
    return [*((each,) for each in VICTIMS), *sampled(pairs, _PAIRS, "users' pairs")]


def test_a_part_is_killed_beside_a_living_guest(user: User) -> None:
    """Its network lives, `ps` tells what is missing, who joins puts that back; then all goes.

    The wardens die before, which would be faster than `ps`. So may the lookout be: woken by the way
    out's end, it repairs the network.
    """
    told = {"way out": "led out has died", "dnsmasq": "dnsmasq has died", "lookout": "follow"}
    told[RELAY] = "led tcp::8080-"
    for victims in _combinations():
        one, two = started(user, LED, NAT)
        wardens = part(user, "warden", one.pid)
        pids = [pid for name in victims for pid in part(user, name, one.pid)]
        assert len(pids) >= len(victims), (victims, user.processes())
        kill(*wardens)
        wait_ended(user, wardens)
        kill(*pids)
        wait_ended(user, pids)
        assert two.poll() is None
        found = "\n".join(faults(user))
        for name in told.keys() & victims:
            is_back = name in ("dnsmasq", "lookout") and part(user, name, two.pid)
            is_over = name == RELAY and "qemu" in victims
            assert told[name] in found or is_back or is_over, (victims, found)
        (three,) = started(user, NAT)
        wait_for(lambda: not faults(user), f"all to be put back after {victims}")
        (network,) = ps(user)["networks"]
        assert network["way_out"] in ("slirp4netns", "pasta")
        assert {str(two.pid), str(three.pid)} <= set(network["members"])
        end(one, two, three)
        if "keeper" not in victims:
            wait_for(lambda: is_gone(user), f"the end after {victims}")
        gc(user)


def test_what_dies_is_put_back_beside_living_guests(user: User) -> None:
    """At once, and without a run that joins; what dies again soon after, a little later."""
    parts = ("way out", "dnsmasq", "lookout", RELAY)
    one, two = started(user, LED, NAT)
    for victims in (*((each,) for each in parts), parts):
        pids = [pid for name in victims for pid in part(user, name, one.pid)]
        assert len(pids) >= len(victims), (victims, user.processes())
        kill(*pids)
        wait_ended(user, pids)
        wait_for(
            lambda: all(part(user, each, one.pid) for each in parts) and not faults(user),
            f"all to be put back after {victims}",
        )
    end(one, two)
    wait_for(lambda: is_gone(user), "the end")


def test_all_that_a_run_has_started_are_killed(user: User) -> None:
    """As systemd does with the first run's unit: what the second needs is put back at once."""
    (one,) = started(user, LED)
    pids = set(user.processes())
    (two,) = started(user, f"{NAT},hostfwd=tcp::8081-:80")
    kill(*pids)
    wait_ended(user, pids)
    one.communicate(timeout=60)
    wait_for(
        lambda: all(part(user, each, two.pid) for each in ("way out", "dnsmasq", "lookout")),
        "all to be put back",
    )
    wait_for(lambda: not faults(user), "a whole network")
    (relay,) = part(user, RELAY, two.pid)
    assert relay not in pids
    end(two)
    gc(user)


def test_the_dnsmasq_of_host_only_is_put_back(user: User) -> None:
    (one,) = started(user, "host-only")
    for _ in range(2):
        (pid,) = part(user, "dnsmasq", one.pid)
        kill(pid)
        wait_ended(user, [pid])
        wait_for(lambda: bool(part(user, "dnsmasq", one.pid)) and not faults(user), "dnsmasq")
    end(one)
    wait_for(lambda: is_gone(user), "the end")


def test_a_port_that_another_has_by_now_is_told(user: User) -> None:
    """When it is free again, it is led again."""
    (one,) = started(user, LED)
    wardens = part(user, "warden", one.pid)
    (pid,) = part(user, RELAY, one.pid)
    kill(*wardens, pid)
    wait_ended(user, [*wardens, pid])
    holder = user.popen("python3", "-c", HOLDER, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    (two,) = started(user, NAT)
    wait_for(lambda: ["led tcp::8080-" in each for each in faults(user)] == [True], "its fault")
    assert part(user, RELAY, one.pid) == []
    end(holder)
    wait_for(lambda: bool(part(user, RELAY, one.pid)) and not faults(user), "the relay")
    end(one, two)
    gc(user)


def test_all_but_a_qemu_are_killed(user: User) -> None:
    """Its tap alone holds the namespace then: who joins finds the same one."""
    (one,) = started(user, LED)
    before = ps(user)["networks"][0]["address"]
    kill_all(user, one.pid)
    assert set(user.processes()) == {one.pid}
    (run,) = ps(user)["runs"]
    assert (run["pid"], run["state"]) == (one.pid, "running")
    assert netwrap(user, "gc").returncode == 0
    (two,) = started(user, NAT)
    wait_for(lambda: not faults(user), "all to be put back")
    (network,) = ps(user)["networks"]
    assert set(network["members"]) == {str(one.pid), str(two.pid)}
    assert network["address"] == before
    end(two)
    wait_members(user, one)
    end(one)
    gc(user)


@pytest.mark.parametrize("then", ["gc", "launch", "ps"])
def test_all_are_killed(user: User, then: str) -> None:
    """The namespaces are gone; whatever comes next removes what is left of them in files."""
    started(user, LED, NAT)
    kill_all(user)
    if then == "launch":
        (one,) = started(user, LED)
        assert ps(user)["networks"][0]["members"] == [str(one.pid)]
        end(one)
    elif then == "ps":
        assert ps(user) == {"runs": [], "networks": []}
    else:
        gc(user)
    wait_for(lambda: is_gone(user), "the end of what was left")


def test_all_but_the_way_out_are_killed(user: User) -> None:
    """It holds the namespace by its tap, and does not end by itself."""
    for then in ("gc", "launch"):
        (one,) = started(user, NAT)
        kept = part(user, "way out", one.pid)
        kill_all(user, *kept)
        if then == "launch":
            (two,) = started(user, NAT)
            wait_for(lambda: not faults(user), "a whole network")
            end(two)
        else:
            gc(user)
        wait_for(lambda: is_gone(user), f"the end by {then}")


@pytest.mark.parametrize("text", ["", "garbage\n", "realm\tbase=/nowhere\tinode=x\tpid=1\n"])
def test_a_damaged_file_is_told(user: User, text: str) -> None:
    (one,) = started(user, NAT)
    place = next(Path(f"/proc/{user.host.pid}/root{STATE}").glob("*.realm"))
    kept = place.read_text("utf-8")
    place.write_text(text, "utf-8")
    for words in (("gc",), ("ps",), ("--", "true", "-nic", "nat")):
        done = netwrap(user, *words)
        assert done.returncode == 125 or words[0] != "--", done
        assert f"{place.name} is damaged" in done.stderr
        assert "Traceback" not in done.stderr
        assert one.poll() is None
    place.write_text(kept, "utf-8")
    end(one)
    wait_for(lambda: is_gone(user), "the end")


def test_who_has_the_lock_is_told(user: User) -> None:
    (one,) = started(user, NAT)
    lock = next(Path(f"/proc/{user.host.pid}/root{STATE}").glob("*.lock")).name
    holder = user.popen("flock", "--no-fork", f"{STATE}/{lock}", "sleep", "1000")
    comm = Path(f"/proc/{holder.pid}/comm")
    wait_for(lambda: comm.read_text("utf-8") == "sleep\n", "the lock to be taken")
    two = launch(user)
    assert two.stderr is not None
    line = two.stderr.readline()
    assert f"waiting for sleep (pid {holder.pid})" in line
    assert f"{STATE}/{lock}" in line
    end(holder)
    wait_for(lambda: is_qemu(two), "QEMU")
    end(one, two)
    wait_for(lambda: is_gone(user), "the end")


def test_two_at_the_same_moment_make_one_realm(user: User) -> None:
    for _ in range(40 if SOAK else 10):
        children = started(user, NAT, LED)
        (network,) = ps(user)["networks"]
        assert set(network["members"]) == {str(child.pid) for child in children}
        end(*children)
        wait_for(lambda: is_gone(user), "the end")


def test_the_last_one_leaves_while_another_joins(user: User) -> None:
    (last,) = started(user, NAT)
    for _ in range(60 if SOAK else 8):
        last.kill()
        (joined,) = started(user, NAT)
        last.communicate(timeout=60)
        wait_members(user, joined)
        wait_for(lambda: not faults(user), "a whole network")
        last = joined
    end(last)
    wait_for(lambda: is_gone(user), "the end")


def test_two_users_do_not_meet(users: tuple[User, User]) -> None:
    alice, bob = users
    hers, his = started(alice, NAT), started(bob, NAT)
    for user, (own,) in ((alice, hers), (bob, his)):
        told = ps(user)
        assert [run["pid"] for run in told["runs"]] == [own.pid]
        assert told["networks"][0]["members"] == [str(own.pid)]
        other = (his if user is alice else hers)[0]
        assert "there is no such run" in netwrap(user, "stop", str(other.pid)).stderr
        assert netwrap(user, "gc").returncode == 0
        assert [each.poll() for each in (*hers, *his)] == [None, None]
    wait_for(lambda: not faults(alice), "a whole network")
    end(*hers)
    wait_for(lambda: not alice.processes(), "the end of hers")
    wait_for(lambda: not faults(bob), "a whole network")
    end(*his)


@pytest.mark.parametrize("runtime", [True, False], ids=["run", "tmp"])
def test_logging_out_leaves_nothing(host: Host, watch: Watch, *, runtime: bool) -> None:
    """Neither in the runtime folder, which goes, nor in /tmp, which stays."""
    user = User(host, runtime=runtime)
    user.log_out()
    watch.baseline(host)
    user.log_in()
    started(user, LED, NAT)
    user.log_out()
    assert not user.processes()
