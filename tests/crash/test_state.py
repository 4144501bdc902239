"""State that somebody has spoilt, and things of ours that somebody else has taken away.

Whatever it is: no traceback, one clear line, nothing of others' touched, and in the end nothing
left.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crash import injected
from crash.injected import KEEPER, STATE
from crash.trials import Subject
from lab.chance import sampled
from lab.leaks import wait_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAILED = 125


@pytest.fixture(scope="module")
def machine(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """Yield a machine for nat networks, for one test after the other."""
    with Subject("nat", tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture
def subject(machine: Subject) -> Iterator[Subject]:
    """Yield the machine; it is as it was when the test is over."""
    yield machine
    try:
        wait_same(machine.host, machine.before)
    except AssertionError:
        machine.renew()
        raise


def launch(subject: Subject) -> dict[str, Any]:
    """Launch, and see that it works or fails with one clear line."""
    started = subject.launch(subject.trial())
    check(subject, started["status"])
    return started


def check(subject: Subject, status: int) -> None:
    """See that a command has worked or has failed in an orderly way."""
    told = subject.told()
    assert "Traceback" not in told, told
    if status:
        assert status == FAILED
        said = [line for line in told.splitlines() if line.startswith("qemu-netwrap: ")]
        assert said, told


def gc(subject: Subject) -> int:
    """Run `gc`, and see that it works or fails with clear lines."""
    status = subject.gc(subject.trial())
    check(subject, status)
    return status


def root(subject: Subject) -> Path:
    """Return the machine's state folder as seen from here."""
    return Path(f"/proc/{subject.host.pid}/root{STATE}")


def dead_run(subject: Subject) -> dict[str, Any]:
    """Leave a run whose keeper and QEMU were killed."""
    started = launch(subject)
    subject.settle()
    injected.kill(injected.pids(str(subject.folder))[KEEPER])
    subject.end(started["pid"])
    return started


def test_a_read_only_folder_is_told(subject: Subject) -> None:
    mount = f"mkdir {STATE} && mount -t tmpfs -o ro,mode=711 lab {STATE}"
    subject.host.run("sh", "-euc", mount)
    assert launch(subject)["status"] == FAILED
    assert "Read-only file system" in subject.told()
    gc(subject)
    subject.host.run("sh", "-euc", f"umount {STATE}; rmdir {STATE}")


# Too small, large enough, and all between.
_INODES = [f"nr_inodes={count}" for count in range(2, 40)]
_PAGES = [f"size={pages * 4096}" for pages in range(1, 16)]
SIZES = [
    *(_INODES[0], _INODES[-1], *sampled(_INODES[1:-1], 5, "inodes")),
    *(_PAGES[0], _PAGES[-1], *sampled(_PAGES[1:-1], 4, "pages")),
]


def test_a_full_disk_leaves_nothing_once_there_is_room_again(subject: Subject) -> None:
    worked = 0
    for size in SIZES:
        mount = f"mkdir {STATE} && mount -t tmpfs -o mode=711,{size} lab {STATE}"
        subject.host.run("sh", "-euc", mount)
        started = launch(subject)
        if started["lives"]:
            worked += 1
            subject.settle()
            subject.check_network(started["pid"])
            subject.end(started["pid"])
        subject.wait_keeper()
        subject.host.run("mount", "-o", "remount,size=4m,nr_inodes=4000", STATE)
        assert gc(subject) == 0, size
        subject.host.run("sh", "-euc", f"umount {STATE}; rmdir {STATE}")
        wait_same(subject.host, subject.before)
    assert 0 < worked < len(SIZES)


SPOILT: dict[str, Callable[[str], str]] = {
    "cut short": lambda text: f"{text}+99\tHostNa",
    "of another version": lambda text: text + "+99\tTeleporter\tname=t0\n",
    "binary": lambda text: "\x00\x01\udcff" * 99 + "\n" + text,
    "a field too few": lambda text: text.replace("\tqueues=1", "").replace("\tstp=0", ""),
    "no number": lambda text: text.replace("=1\tindex=", "=1\tindex=x").replace("pid=", "pid=x"),
}


@pytest.mark.parametrize("owner", ["runs", "networks"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_journal_is_told_and_does_no_harm(subject: Subject, owner: str, how: str) -> None:
    dead_run(subject)
    (journal,) = root(subject).glob(f"*/{owner}/*/journal")
    good = journal.read_text("utf-8")
    journal.write_text(SPOILT[how](good), "utf-8", errors="surrogateescape")
    gc(subject)
    other = subject.launch(subject.trial(), ("true", "-nic", "tap,br=br0"))
    subject.wait_keeper()
    assert other["status"] == 0, subject.told()
    if journal.parent.exists():
        journal.write_text(good, "utf-8")
    assert gc(subject) == 0, subject.told()


@pytest.mark.parametrize("owner", ["runs", "networks"])
def test_a_folder_in_a_journals_place_is_told(subject: Subject, owner: str) -> None:
    dead_run(subject)
    (journal,) = root(subject).glob(f"*/{owner}/*/journal")
    good = journal.read_text("utf-8")
    journal.unlink()
    journal.mkdir()
    assert gc(subject) == FAILED
    assert "journal" in subject.told()
    journal.rmdir()
    journal.write_text(good, "utf-8")
    assert gc(subject) == 0


def test_the_state_of_another_boot_is_dropped_and_not_acted_on(subject: Subject) -> None:
    old = f"{STATE}/00000000-1"
    lines = "+1\\tBridge\\tname=br0\\tmac=52:54:00:00:00:01\\tstp=0\\tforward_delay=0"
    make = f"""
        mkdir -p {old}/networks/br0 {old}/runs/1
        : >{old}/runs/1/lock
        printf '{lines}\\thello_time=-1\\topen=0\\n' >{old}/networks/br0/journal
    """
    subject.host.run("sh", "-euc", make)
    started = launch(subject)
    assert started["lives"]
    subject.end(started["pid"])
    subject.wait_keeper()
    assert not (root(subject) / "00000000-1").exists()
    assert gc(subject) == 0


MEDDLING = {
    "bridge removed": "ip link del qn-nat",
    "bridge removed and another made": "ip link del qn-nat; ip link add qn-nat type bridge",
    "table removed": "nft delete table inet qemu_netwrap",
    "chain removed": "nft flush chain inet qemu_netwrap qn-nat_forward"
    "; nft delete chain inet qemu_netwrap qn-nat_forward",
    "tap unplugged": "ip link set TAP nomaster",
    "tap removed": "ip link del TAP",
    "tap renamed": "ip link set TAP down; ip link set TAP name other",
    "address removed": "ip address flush dev qn-nat",
    "forwarding switched off": "echo 0 >/proc/sys/net/ipv4/conf/eth0/forwarding",
    "uplink renamed": "ip link set eth0 down; ip link set eth0 name wan; ip link set wan up",
    "memory removed": f"rm -r {STATE}/*/shared",
    "bridge renamed": "ip link set qn-nat down; ip link set qn-nat name theirs",
}
# What others have put in the place of ours is theirs, and what they have made us forget is lost.
UNDO = {
    "memory removed": "echo 0 >/proc/sys/net/ipv4/conf/eth0/forwarding;"
    " echo 0 >/proc/sys/net/ipv6/conf/eth0/force_forwarding",
    "bridge renamed": "ip link del theirs",
    "bridge removed and another made": "ip link del qn-nat",
    "uplink renamed": "ip link set wan down; ip link set wan name eth0; ip link set eth0 up;"
    " ip route replace default via 203.0.113.1 dev eth0;"
    " ip address add 2001:db8:113::2/64 dev eth0",
}


@pytest.mark.parametrize("how", MEDDLING)
@pytest.mark.parametrize("by_keeper", [True, False], ids=["keeper", "gc"])
def test_what_somebody_else_has_done_to_ours(subject: Subject, how: str, by_keeper: bool) -> None:
    started = launch(subject)
    subject.settle()
    script = MEDDLING[how].replace("TAP", f"qn{started['pid']}-0")
    subject.host.run("sh", "-euc", script)
    first = subject.folder
    second = launch(subject)  # joins, repairs, or says why not
    if second["lives"]:
        subject.settle()
        subject.end(second["pid"])
    subject.wait_keeper()
    if not by_keeper:
        injected.kill(injected.pids(str(first))[KEEPER])
    subject.end(started["pid"])
    subject.wait_keeper(first)
    gc(subject)
    if how in UNDO:
        subject.host.run("sh", "-euc", UNDO[how])
        assert gc(subject) == 0, subject.told()
