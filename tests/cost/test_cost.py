"""What a launch costs, counted: it does not depend on how fast the machine is.

The figures in milliseconds are `make bench`'s (docs/benchmarks.md).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from cost.trace import Trace
from lab.netns import Host, internet, wait_for
from lab.tool import COMMAND, netwrap
from qemu_netwrap.linux import files
from qemu_netwrap.runtime import waiter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A machine with much of everything that a launch could stumble over.
INTERFACES: Final = 300
ROUTES: Final = 3000
RULES: Final = 1000

EXPECTED: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    Path(__file__).with_name("expected.toml").read_text("utf-8")
)
# However they come in: directly, or by what something else imports.
NEVER: Final = {
    *("typer", "click", "rich", "pyroute2", "sh", "psutil", "asyncio", "json", "re", "typing"),
    *("dataclasses", "enum", "subprocess", "socket", "signal", "pathlib", "contextlib", "inspect"),
    *("ipaddress", "tomllib", "logging", "argparse", "importlib.metadata", "threading"),
}
# No firewall sees what goes over a bridge, whether br_netfilter is in this kernel or not.
_PREPARE: Final = """
ip link add br0 type bridge
for each in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do
    [ ! -e "$each" ] || echo 0 >"$each"
done
"""
STATE: Final = "/run/qemu-netwrap"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a QEMU is that ends at once, and the traces."""
    return tmp_path_factory.mktemp("cost")


@contextlib.contextmanager
def prepared() -> Iterator[Host]:
    """Yield a machine with an uplink and a bridge."""
    with internet() as both:
        both.host.run("sh", "-euc", _PREPARE)
        yield both.host


@pytest.fixture(scope="module")
def machine(lab: None) -> Iterator[Host]:
    """Yield a machine that fills up with what others have there."""
    with prepared() as host:
        yield host


@pytest.fixture(scope="module")
def bare(lab: None) -> Iterator[Host]:
    """Yield one that stays as it is."""
    with prepared() as host:
        yield host


@pytest.fixture(scope="module")
def traces(machine: Host, folder: Path) -> dict[str, Trace]:
    """Return a launch of each kind, with its end, traced."""
    return {case: traced(machine, case, folder, "small") for case in EXPECTED}


@pytest.fixture(scope="module")
def inhabited(traces: dict[str, Trace], machine: Host, folder: Path) -> dict[str, list[Trace]]:
    """Return the same launches, twice, on the same machine with a table of another program's."""
    machine.run("nft", "add table inet others; add chain inet others many")
    return {
        case: [traced(machine, case, folder, f"inhabited {n}") for n in range(2)] for case in traces
    }


@pytest.fixture(scope="module")
def crowded(inhabited: dict[str, list[Trace]], machine: Host, folder: Path) -> dict[str, Trace]:
    """Return the same with much of everything."""
    crowd(machine)
    return {case: traced(machine, case, folder, "large") for case in inhabited}


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


class Warm:
    """A VM that keeps the nat network up while another comes and goes."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        program = script(folder / "other", "echo up; exec sleep infinity")
        words = (COMMAND, "-q", "--", program, "-nic", "nat")
        self._child = host.popen(*words, stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == "up\n"
        # Its keeper still looks for what others have left.
        wait_for(lambda: "waiter.py" in " ".join(self._host.processes().values()), "the waiter")

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        netwrap(self._host, "wait", check=True)


def command(case: str, folder: Path) -> tuple[str, ...]:
    """Return a launch of a kind, of a QEMU that ends at once."""
    vm = script(folder / "vm", "exit 0")
    return (COMMAND, "-q", "--", vm, *EXPECTED[case]["args"])


def others(host: Host, case: str, folder: Path) -> contextlib.AbstractContextManager[None]:
    """Have running what a kind of launch needs to be running."""
    return Warm(host, folder) if case == "nat, up" else contextlib.nullcontext()


def traced(host: Host, case: str, folder: Path, name: str) -> Trace:
    """Trace a launch of a kind."""
    with others(host, case, folder):
        return Trace(host, folder / f"{name} {case}", *command(case, folder))


@pytest.mark.parametrize("case", EXPECTED)
def test_processes_and_requests(traces: dict[str, Trace], case: str) -> None:
    trace = traces[case]
    assert trace.started == EXPECTED[case]["started"].split()
    assert trace.forks == EXPECTED[case]["forks"]
    assert dict(trace.requests) == EXPECTED[case]["requests"]


@pytest.mark.parametrize("case", EXPECTED)
def test_nothing_is_read_that_grows_with_the_host(
    inhabited: dict[str, list[Trace]],
    crowded: dict[str, Trace],
    machine: Host,
    folder: Path,
    case: str,
) -> None:
    """On a busy machine a launch may wait for another process, and load what waits: once more.

    One that grew with the host would never be as before.
    """
    large = crowded[case]
    for attempt in range(4):
        if counted(large) not in map(counted, inhabited[case]):
            large = traced(machine, case, folder, f"large {attempt}")
    alike = [each for each in inhabited[case] if counted(each) == counted(large)]
    small = (alike or inhabited[case])[0]
    libraries = ("/usr/lib", sys.prefix)
    for trace in (small, large):
        foreign = {each for each in trace.listed if not each.startswith((STATE, *libraries))}
        assert foreign <= {"/proc/PID/fd"}
    assert counted(small) == counted(large)
    # Numbers may have a digit more.
    assert abs(received(small) - received(large)) < 500


def test_dnsmasq_does_not_look_at_every_interface(traces: dict[str, Trace]) -> None:
    """It would before it answers, to make itself a DUID. It asks for addresses alone."""
    asked = {kind for trace in traces.values() for kind in trace.requests_of("dnsmasq")}
    assert asked == {"RTM_GETADDR dump"}


def counted(trace: Trace) -> dict[str, int]:
    """Return how often the launch made each call, the answers to its one dump excepted."""
    is_dump = any(kind.endswith("ROUTE dump") for kind in trace.requests)
    return {k: n for k, n in trace.counts.items() if not (is_dump and k == "recvfrom")}


def received(trace: Trace) -> int:
    """Return how many bytes the launch read, those of its one dump excepted."""
    is_dump = any(kind.endswith("ROUTE dump") for kind in trace.requests)
    names = ("recvmsg", "read", "getdents64", "recvfrom")
    return trace.received(*(names[:-1] if is_dump else names))


def crowd(host: Host) -> None:
    """Give a machine many interfaces, routes and rules of others."""
    lines = [f"link add many{n} type veth peer name peer{n}" for n in range(INTERFACES)]
    lines += [f"route add 11.{n >> 8}.{n & 255}.0/24 dev eth0" for n in range(ROUTES)]
    host.run("ip", "-batch", "-", input="\n".join(lines))
    rules = "\n".join(f"tcp dport {n} accept" for n in range(1, RULES))
    host.run("nft", "-f", "-", input=f"table inet others {{\nchain many {{\n{rules}\n}}\n}}\n")


@pytest.mark.parametrize("case", EXPECTED)
def test_imports_of_the_launch(bare: Host, folder: Path, case: str) -> None:
    with others(bare, case, folder):
        found = imports(bare, *command(case, folder))
    netwrap(bare, "wait", check=True)
    interpreter = imports(bare, sys.executable, "-c", "pass")
    allowed = allowed_imports(case)
    assert found & NEVER == set()
    assert found - interpreter - allowed == set(), "more is loaded than expected.toml allows"
    ours = {name for name in allowed if name.startswith("qemu_netwrap")}
    assert ours - found == set(), "expected.toml allows what is not loaded"


def imports(host: Host, *command: str) -> set[str]:
    """Run a command; return the modules that it and what it forks import."""
    done = host.run(*command, env={"PYTHONPROFILEIMPORTTIME": "1"})
    return imported(done.stderr.splitlines())


def imported(lines: Iterable[str]) -> set[str]:
    """Read what an interpreter told of its imports."""
    told = (line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:"))
    return set(told)


def allowed_imports(case: str) -> set[str]:
    """Return what a case may import: its own, and that of those it is like, but for `without`."""
    like = EXPECTED[case].get("like")
    without = set(EXPECTED[case].get("without", "").split())
    own = set(EXPECTED[case]["imports"].split())
    return own | (allowed_imports(like) - without if like else set())


def test_imports_of_the_waiter(tmp_path: Path) -> None:
    """While QEMU lives it has loaded what comes with a bare interpreter, and no more."""
    lock = files.open_locked(str(tmp_path / "lock"))
    command = (sys.executable, "-I", "-S", "-X", "importtime")
    waiting = subprocess.Popen(
        (*command, waiter.__file__, str(tmp_path), "0"),
        stdin=os.open(tmp_path / "lock", os.O_RDWR),
        stderr=subprocess.PIPE,
        text=True,
    )
    stack = Path(f"/proc/{waiting.pid}/stack")
    wait_for(lambda: "flock" in stack.read_text("utf-8"), "it to sleep")
    waiting.kill()
    _, told = waiting.communicate()
    bare = subprocess.run((*command, "-c", "pass"), capture_output=True, text=True, check=True)
    assert imported(told.splitlines()) - imported(bare.stderr.splitlines()) == {"fcntl"}
    os.close(lock)
