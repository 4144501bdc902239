"""The program is upgraded or removed while VMs run, or another version has written the state.

Each installation here is a copy of the package in a venv of its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from lab import elder
from lab.elder import Elder
from lab.installation import Installation
from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import COMMAND, netwrap, unhurried
from qemu_netwrap.model import reservations
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.resources.journal import FORMAT
from qemu_netwrap.runtime import kept_code, waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.netns import Host, Uplinked

STATE: Final = Path("run/qemu-netwrap")
VM: Final = "#!/bin/sh\nexec sleep infinity\n"


class Present(Installation):
    """The installation that the tests are run with."""

    def __init__(self) -> None:
        """Make nothing."""

    def command(self, *words: str) -> tuple[str, ...]:
        return (COMMAND, *words)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "venv")


@pytest.fixture
def vm(tmp_path: Path) -> str:
    program = tmp_path / "vm"
    program.write_text(VM, "utf-8")
    program.chmod(0o755)
    return str(program)


def state(host: Host) -> Path:
    """Return the folder of the machine's state."""
    (folder,) = Path(f"/proc/{host.pid}/root", STATE).iterdir()
    return folder


@pytest.fixture
def running(uplinked: Uplinked, installation: Installation, vm: str) -> Iterator[_Running]:
    """Yield a VM on nat that an installation has started; its keeper sleeps."""
    with _Running(uplinked.host, installation.command("-q", "--", vm, "-nic", "nat")) as vm_running:
        yield vm_running


class _Running:
    """A VM, as long as the block lasts."""

    def __init__(self, host: Host, words: tuple[str, ...]) -> None:
        self.host = host
        self.before = snapshot(host)
        self.child = host.popen(*words)

    def __enter__(self) -> Self:
        slept = f"/runs/{self.child.pid}/waiter.py"
        wait_for(lambda: slept in " ".join(self.host.processes().values()), "the keeper to sleep")
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the VM."""
        self.child.kill()
        self.child.wait()

    @property
    def run(self) -> Path:
        """The run's folder."""
        return state(self.host) / "runs" / str(self.child.pid)


@pytest.mark.parametrize("change", [Installation.upgrade, Installation.remove])
def test_a_run_is_released_by_the_version_that_started_it(
    running: _Running, installation: Installation, change: Callable[[Installation], None]
) -> None:
    change(installation)
    running.end()
    wait_same(running.host, running.before)


def test_a_hooks_run_too(uplinked: Uplinked, installation: Installation) -> None:
    """It lives by its tap, and is released by another script."""
    host = uplinked.host
    host.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    before = snapshot(host)
    host.run(*installation.program("ifup", "tap0"), env={"QEMU_NETWRAP_NETWORK": "nat"})
    wait_for(lambda: "tap_waiter.py" in " ".join(host.processes().values()), "its keeper")
    installation.remove()
    host.run("ip", "link", "del", "tap0")
    host.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    wait_for(lambda: not Path(f"/proc/{host.pid}/root", STATE).exists(), "the release")
    assert set(snapshot(host).facts) == set(before.facts)
    host.run("ip", "link", "del", "tap0")


def test_versions_share_a_network(running: _Running, installation: Installation, vm: str) -> None:
    """The last one out takes it down, whichever version that is."""
    installation.upgrade()
    with _Running(running.host, (COMMAND, "-q", "--", vm, "-nic", "nat")):
        running.end()
        wait_for(lambda: not running.run.exists(), "the first run's release")
        assert "qn-nat" in running.host.run("ip", "link").stdout
    wait_same(running.host, running.before)


NEWER, OLDER_ONE = "the run of a newer one", "ours, which an older one meets"


@pytest.fixture(params=[NEWER, OLDER_ONE])
def two(request: pytest.FixtureRequest, installation: Installation) -> tuple[Installation, ...]:
    """Return who starts a run, and who meets it and cannot read its journal."""
    if request.param == NEWER:
        newer = installation.become("9.9.9", FORMAT + 1, kept_code.FORMAT + 1)
        return newer, Present()
    return Present(), installation.become("0.0.9", FORMAT - 1, kept_code.FORMAT - 1)


def test_a_run_in_a_newer_format_is_left_to_its_version(
    uplinked: Uplinked, two: tuple[Installation, Installation], vm: str
) -> None:
    """It is shown, told of, and ended; its own keeper releases it. All else goes on."""
    host, (maker, meeter) = uplinked.host, two
    with _Running(host, maker.command("-q", "--", vm, "-nic", "nat")) as running:
        shown = host.run(*meeter.command("ps")).stdout
        assert "has written it in format" in shown
        assert "qn-nat" in host.run(*meeter.command("network", "list")).stdout
        host.run(*meeter.command("network", "show", "nat"))
        journals = written(host)
        joining = host.run(*meeter.command("-q", "--", vm, "-nic", "nat"), check=False)
        assert joining.returncode == 125
        assert "network nat cannot be joined by this version: /run/" in joining.stderr
        assert "give the network another bridge" in joining.stderr
        planned = host.run(*meeter.command("plan", "--", vm, "-nic", "nat"), check=False)
        assert (planned.returncode, planned.stdout) == (125, "")
        assert "network nat cannot be joined by this version: /run/" in planned.stderr
        assert host.run(*meeter.command("network", "down", "nat"), check=False).returncode == 125
        other = ("-q", "--", vm, "-name", "other", "-nic", "host-only")
        with _Running(host, meeter.command(*other)):
            done = host.run(*meeter.command("gc"))
            assert (done.stdout, unhurried(done.stderr)) == ("nothing was left\n", "")
            host.run(*meeter.command("stop", "other"))
        assert written(host) == journals
        host.run(*meeter.command("stop", running.run.name))
    wait_same(host, running.before)


@pytest.mark.parametrize(
    ("two", "is_removed"), [(NEWER, False), (NEWER, True), (OLDER_ONE, False)], indirect=["two"]
)
def test_a_dead_run_in_a_newer_format_is_told_with_the_remedy(
    uplinked: Uplinked,
    two: tuple[Installation, Installation],
    vm: str,
    *,
    is_removed: bool,
) -> None:
    """Its keeper was killed as well. The command that is told releases it, and all it has."""
    host, (maker, meeter) = uplinked.host, two
    with _Running(host, maker.command("-q", "--", vm, "-nic", "nat")) as dead:
        keeper = f"/runs/{dead.child.pid}/waiter.py"
        (pid,) = (pid for pid, words in host.processes().items() if keeper in words)
        host.run("kill", "-KILL", str(pid))
    if is_removed:
        maker.remove()
    journals = written(host)
    with _Running(host, meeter.command("-q", "--", vm, "-nic", "host-only")) as other:
        pass
    wait_for(lambda: not other.run.exists(), "the other's release")
    assert written(host) == journals
    done = host.run(*meeter.command("gc"), check=False)
    assert done.returncode == 125
    assert done.stderr.count("has written it in format") == 2  # the run's and the network's
    assert written(host) == journals
    assert "qn-nat" in host.run("ip", "link").stdout
    (remedy,) = re.findall(r"releases it: (.*)", done.stderr)
    assert ("package.zip" in remedy) == is_removed
    host.sh(remedy)
    wait_same(host, dead.before)


@pytest.mark.parametrize("last", ["older", "newer"])
def test_a_newer_version_joins_and_is_removed_while_its_vm_runs(
    uplinked: Uplinked, installation: Installation, vm: str, last: str
) -> None:
    """It reads the older format. Either takes the network down that this version has made."""
    host = uplinked.host
    newer = installation.become("9.9.9", FORMAT + 1, kept_code.FORMAT + 1)
    words = ("-q", "--", vm, "-nic", "nat")
    with (
        _Running(host, (COMMAND, *words)) as ours,
        _Running(host, newer.command(*words)) as theirs,
    ):
        newer.remove()
        first = ours if last == "newer" else theirs
        first.end()
        wait_for(lambda: not first.run.exists(), "the first one's release")
        assert "qn-nat" in host.run("ip", "link").stdout
    wait_same(host, ours.before)


def written(host: Host) -> dict[Path, str]:
    """Return the journals of the runs and networks that are on nat's side, with what is in them."""
    folder = state(host)
    return {file: file.read_text("utf-8") for file in folder.glob("[rn]*/*/journal")}


OLDER: Final[dict[str, tuple[str, str]]] = {
    "an older journal": ("\tguarded=1\tfiltered=0", "\tdad=0"),
    "a newer journal": ("\tBridge\t", "\tBridge\tcolour=red\t"),
    "a newer info": ("network\tname=", "network\tcolour=red\tname="),
    "an older info": ("\taddress6=", "\tformerly="),
}


@pytest.mark.parametrize("how", OLDER)
def test_the_files_of_another_version_are_read(running: _Running, how: str, vm: str) -> None:
    """Others join its network, look at it, and it is taken down."""
    host, (old, new) = running.host, OLDER[how]
    file = state(host) / "networks" / "qn-nat" / how.rpartition(" ")[2]
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")
    with _Running(host, (COMMAND, "-q", "--", vm, "-nic", "nat")) as other:
        for words in (("ps",), ("network", "list"), ("network", "show", "nat"), ("gc",)):
            done = netwrap(host, *words)
            assert (done.returncode, unhurried(done.stderr)) == (0, ""), words
        other.end()
        wait_for(lambda: not other.run.exists(), "the other's release")
    running.end()
    wait_same(host, running.before)


def test_of_what_cannot_be_read_the_rest_is_released(running: _Running) -> None:
    host = running.host
    journal = running.run / "journal"
    with journal.open("a", encoding="utf-8") as file:
        file.write("+98\tTeleporter\tname=t0\n")
    assert "'Teleporter\\tname=t0'" in netwrap(host, "ps").stdout
    running.end()
    wait_for(lambda: "qn-nat" not in host.run("ip", "link").stdout, "the rest to go")
    wait_for(lambda: running.run.exists() and (running.run / "log").exists(), "its log")
    keeper = f"/runs/{running.child.pid}/waiter.py"
    wait_for(lambda: keeper not in " ".join(host.processes().values()), "its keeper's end")
    done = netwrap(host, "gc")
    assert done.returncode == 125
    assert f"{STATE}" in done.stderr
    assert "remove the line" in done.stderr
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "Teleporter" not in line), "utf-8")
    assert netwrap(host, "gc").returncode == 0
    wait_same(host, running.before)


DAMAGES: Final = {
    "a run's info": "runs/{run}/info",
    "a run's tap": "runs/{run}/tap",
    "a network's info": "networks/qn-nat/info",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_one_damaged_file_does_not_hide_the_others(running: _Running, how: str, vm: str) -> None:
    host = running.host
    with _Running(host, (COMMAND, "-q", "--", vm, "-name", "other", "-nic", "host-only")) as other:
        file = state(host) / DAMAGES[how].format(run=running.run.name)
        good = file.read_text("utf-8") if file.exists() else None
        file.write_text("nonsense\tindeed\n", "utf-8")
        shown = netwrap(host, "ps", check=True).stdout
        assert "other" in shown
        assert "damaged" in shown
        assert "host-only" in netwrap(host, "network", "list", check=True).stdout
        assert netwrap(host, "stop", "other").returncode == 0
        file.unlink() if good is None else file.write_text(good, "utf-8")
        wait_for(lambda: not other.run.exists(), "the other's release")
    running.end()
    wait_same(host, running.before)


def heir_of(address: str) -> str:
    """Return a MAC whose guest gets ADDRESS on the elder's network, where nobody has it."""
    subnet = Subnet.around("10.208.251.1/24")
    macs = (f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(1 << 16))
    return next(mac for mac in macs if reservations.choose(mac, subnet, ()) == address)


def asked(host: Host) -> None:
    """Everything that shows is content with what another version has left."""
    for words in (("ps",), ("network", "list"), ("network", "show", "nat"), ("gc",)):
        done = netwrap(host, *words)
        assert (done.returncode, unhurried(done.stderr)) == (0, ""), words
    shown = json.loads(netwrap(host, "ps", "--json", check=True).stdout)
    assert [each["faults"] for part in shown.values() for each in part if each["faults"]] == []


@pytest.mark.parametrize(("first", "keeper"), [("elder", waiter.__file__), ("heir", "")])
def test_a_vm_of_927bebb_and_one_that_joins_its_network(
    uplinked: Uplinked, vm: str, first: str, keeper: str
) -> None:
    """Whoever goes first: the other one keeps what it has, and all goes with the last."""
    host = uplinked.host
    before = snapshot(host)
    old = Elder(host, keeper)
    asked(host)
    mac = heir_of(elder.ADDRESS)
    words = (COMMAND, "-q", "--", vm, "-name", elder.NAME, "-nic", f"nat,mac={mac}")
    with _Running(host, words) as new:
        asked(host)
        hosts = state(host) / "networks" / "qn-nat" / "hosts"
        assert (hosts / elder.MAC).read_text("utf-8").startswith(f"{elder.MAC},{elder.ADDRESS},")
        assert elder.ADDRESS not in (hosts / mac).read_text("utf-8")
        assert elder.NAME not in (hosts / mac).read_text("utf-8")
        if first == "elder":
            old.end()
            assert netwrap(host, "wait", old.name).returncode == 0
            assert elder.NAME in (hosts / mac).read_text("utf-8")
            asked(host)
    if first == "heir":
        wait_for(lambda: not new.run.exists(), "the new one's release")
        asked(host)
        assert netwrap(host, "stop", old.name).returncode == 0
        old.end()
    wait_same(host, before)
