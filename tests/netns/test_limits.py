"""Few open files allowed (RLIMIT_NOFILE): it works, or says why and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from lab.chance import sampled
from lab.leaks import snapshot, wait_same
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked


def _drawn(limits: range) -> list[int]:
    """Return some of the limits in their order, the least and the most among them."""
    return sorted({limits[0], limits[-1], *sampled(limits, 9, f"limits to {limits[-1]}")})


LIMITS: Final = _drawn(range(3, 41))
FEWER: Final = _drawn(range(3, 28))
# With less than this Python itself does not come to our first line, or cannot import more.
OURS: Final = 5
# A QEMU that tells its limits, the soft one and the hard one.
PROGRAM: Final = "#!/bin/sh\nulimit -Sn\nulimit -Hn\n"
VM: Final = "/opt/vm"
# Root of a container, say, may not raise a hard limit.
CONFINED: Final = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--")
BOTH: Final = pytest.mark.parametrize(
    ("wrap", "limits"), [((), LIMITS), (CONFINED, FEWER)], ids=["root", "confined"]
)
WORDS: Final = {
    "nat": ("--", VM, "-nic", "nat,hostfwd=tcp::2222-:22"),
    "bridge": ("--", VM, "-nic", "bridge,br=br7"),
    "host-only": ("--", VM, "-nic", "host-only"),
    "up": ("network", "up", "nat"),
    "down": ("network", "down", "nat"),
    "hook": ("ifup", "tap7"),
}


def limited(host: Host, limit: int, *words: str, wrap: tuple[str, ...] = ()) -> str:
    """Run the command with few files; return what it printed, empty where it said why it failed."""
    done = host.run("prlimit", f"--nofile={limit}", *wrap, COMMAND, *words, check=False)
    if done.returncode:
        if limit >= OURS:
            assert done.returncode == 125, done
            assert "hint: too many files are open: raise the limit (ulimit -n)" in done.stderr
            assert "Traceback" not in done.stderr
        return ""
    return done.stdout or "done"


@BOTH
@pytest.mark.parametrize("kind", ["nat", "bridge", "host-only"])
def test_a_launch(uplinked: Uplinked, kind: str, wrap: tuple[str, ...], limits: list[int]) -> None:
    host = uplinked.host
    host.write(VM, PROGRAM, mode=0o755)
    before = snapshot(host)
    ran = []
    for limit in limits:
        printed = limited(host, limit, "-q", *WORDS[kind], wrap=wrap)
        if printed:
            ran.append(limit)
            assert printed.split() == [str(limit)] * 2  # QEMU has the limits that the user gave
        wait_same(host, before)
    assert ran == [limit for limit in limits if limit >= ran[0]]
    # What it takes lies between the last one that was too few and the first that was enough.
    assert max((limit for limit in limits if limit < ran[0]), default=0) < 24


@BOTH
def test_a_network_kept_up(uplinked: Uplinked, wrap: tuple[str, ...], limits: list[int]) -> None:
    host = uplinked.host
    before = snapshot(host)
    ran = []
    for limit in limits:
        if limited(host, limit, "-q", *WORDS["up"], wrap=wrap):
            ran.append(limit)
            there = snapshot(host)
            if not limited(host, limit, "-q", *WORDS["down"], wrap=wrap):
                wait_same(host, there)
                netwrap(host, *WORDS["down"], check=True)
        wait_same(host, before)
    assert ran == [limit for limit in limits if limit >= ran[0]]


@pytest.mark.parametrize("wrap", [(), CONFINED], ids=["root", "confined"])
def test_a_hook(host: Host, wrap: tuple[str, ...]) -> None:
    host.sh("ip tuntap add tap7 mode tap; ip link set tap7 up; ip link set tap7 down")
    before = snapshot(host)
    ran = []
    for limit in FEWER:
        if limited(host, limit, *WORDS["hook"], wrap=wrap):
            ran.append(limit)
            netwrap(host, "ifdown", "tap7", check=True)
        wait_same(host, before)
    assert ran == [limit for limit in FEWER if limit >= ran[0]]
    host.sh("ip link del tap7")


@pytest.mark.parametrize("taken", ["20 21 22 23", "30 31 32 33 34 35 36 37 38 39"])
def test_descriptors_that_are_taken(uplinked: Uplinked, taken: str) -> None:
    """What the user has open counts, also where it is just where ours would go."""
    host = uplinked.host
    host.write(VM, PROGRAM, mode=0o755)
    before = snapshot(host)
    opened = f'for n in {taken}; do eval "exec $n</dev/null"; done; ulimit -n 40; exec "$@"'
    words = ("bash", "-c", opened, "bash", COMMAND, "-q", *WORDS["nat"])
    done = host.run(*words, check=False)
    assert done.returncode in (0, 125)
    assert (done.returncode == 125) is ("ulimit -n" in done.stderr)
    wait_same(host, before)
