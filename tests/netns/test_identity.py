"""Whom `stop` ends: QEMU and what it has started, and never who only has a descriptor or a name."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.running import fds, keeper_of, links, open_tap, state_folder
from lab import hostile
from lab.hooked import IFUP, SCRIPTS, has_state, ps, start, wait_gone
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host, Uplinked

TAP: Final = ("-nic", f"tap,ifname=tap0,{SCRIPTS}")
PYTHON: Final = os.path.realpath(sys.executable)  # which all users can run
# A service with a child: it takes what it is sent, keeps it, and says so.
SERVICE: Final = """
import os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as here:
    here.bind(sys.argv[1])
    here.listen()
    os.chmod(sys.argv[1], 0o777)
    if os.fork() == 0:
        here.close()
        signal.pause()
    print("up", flush=True)
    kept = []
    while True:
        peer, _ = here.accept()
        kept += socket.recv_fds(peer, 1, 16)[1]
        peer.send(b"x")
        peer.close()
"""


class Service:
    """A process of root's that others can send descriptors to, and its child."""

    def __init__(self, host: Host, path: str) -> None:
        """Start it."""
        self._process = host.popen(
            sys.executable, "-c", SERVICE, path, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"
        self.pid = self._process.pid
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        self._child = int(children.split()[0])

    def is_untouched(self) -> bool:
        """Whether both live."""
        return self._process.poll() is None and alive(self._child)

    def end(self) -> None:
        """End both, so that what they have is free."""
        for pid in (self._child, self.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait(30)


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a folder that all users can get to, unlike those of pytest or this clone's."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        shutil.copy(hostile.__file__, path)
        yield Path(path)


@pytest.fixture
def service(host: Host, place: Path) -> Iterator[Service]:
    """A service on the machine; gone after the test."""
    found = Service(host, str(place / "socket"))
    yield found
    found.end()


@contextlib.contextmanager
def betrayed(
    host: Host, place: Path, *words: str, options: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a QEMU that does what WORDS say, and return when it has done it."""
    program = (PYTHON, str(place / "hostile.py"), str(place / "socket"), *words)
    child = host.popen(
        *(COMMAND, "-q", *options, "--", *program, "-nic", "host-only"), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    keeper_of(host, child.pid)
    yield child
    child.kill()
    child.wait(30)


def alive(pid: int) -> bool:
    """Whether a process lives, be it without its first thread."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    over, _, _ = select.select([fd], [], [], 0)
    os.close(fd)
    return not over


def left_behind(place: Path) -> int:
    """Return the process that a hostile QEMU has left behind."""
    path = place / "socket.left"
    wait_for(lambda: path.exists() and path.read_text("ascii") != "", "what is left")
    return int(path.read_text("ascii"))


@pytest.mark.parametrize("options", [(), ("--run-as", "nobody")], ids=["as root", "as nobody"])
def test_who_was_sent_the_lock_is_left_alone(
    host: Host, place: Path, service: Service, options: tuple[str, ...]
) -> None:
    with betrayed(host, place, "send-lock", options=options) as qemu:
        done = netwrap(host, "stop", str(qemu.pid))
        assert qemu.wait(30) == -signal.SIGTERM
    assert service.is_untouched()
    assert done.returncode == 125
    assert f"(pid {service.pid})" in done.stderr
    assert links(host) == {"lo"}
    assert not has_state(host)


def test_who_was_sent_the_lock_is_named_where_qemu_is_gone(
    host: Host, place: Path, service: Service
) -> None:
    with betrayed(host, place, "send-lock") as qemu:
        assert ps(host)["runs"][0]["state"] == "running"
    (run,) = ps(host)["runs"]
    assert (run["state"], run["pid"]) == ("held", 0)
    assert f"(pid {service.pid})" in run["faults"][0]
    assert f"(pid {service.pid})" in netwrap(host, "ps", check=True).stdout
    done = netwrap(host, "gc")
    assert (done.returncode, f"(pid {service.pid})" in done.stderr) == (125, True)
    assert f"qemu-netwrap stop {qemu.pid}" in done.stderr
    assert netwrap(host, "stop", str(qemu.pid)).returncode == 125
    assert service.is_untouched()
    assert not has_state(host)


def test_a_file_of_the_locks_name_is_not_the_lock(host: Host, place: Path) -> None:
    """Anybody can make one, in a mount namespace of their own."""
    with betrayed(host, place) as qemu:
        path = f"{state_folder(host)}/runs/{qemu.pid}/lock"
        script = f"mount -t tmpfs x /run; mkdir -p {path}; rmdir {path}; exec sleep 1000 3>{path}"
        other = host.popen("unshare", "-m", "sh", "-euc", script)
        # Until then 3 may be a library: unshare and the shell are loaded before.
        wait_for(lambda: fds(other.pid).get(3) == path, "the file")
        netwrap(host, "stop", str(qemu.pid), check=True)
        assert qemu.wait(30) == -signal.SIGTERM
        assert other.poll() is None
        other.kill()
        other.wait(30)
    assert not has_state(host)


def test_the_first_process_is_never_ended(host: Host, place: Path) -> None:
    """In a container that may be what QEMU was started by, or QEMU itself."""
    program = f"{PYTHON} {place}/hostile.py {place}/socket"
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-euc")
    script = (
        f"{COMMAND} -q -- {program} -nic host-only >{place}/up & "
        f"while ! grep -q up {place}/up; do sleep 0.01; done; "
        f"{COMMAND} stop $!; echo lives; wait"
    )
    done = host.run(*inside, script)
    assert "lives" in done.stdout
    wait_gone(host)


@pytest.mark.parametrize(
    "word", ["leave", "leave-mapped", "leave-shared", "leave-thread", "leave-headless"]
)
def test_what_keeps_a_run_alive_is_named_and_the_run_is_over(
    host: Host, place: Path, word: str
) -> None:
    """A child without its parent, which has mapped the lock, has it at a number of its own, ..."""
    with betrayed(host, place, word) as qemu:
        left = left_behind(place)
    try:
        assert ps(host)["runs"][0]["state"] == "held"
        assert f"(pid {left})" in netwrap(host, "gc", timeout=120).stderr
        done = netwrap(host, "stop", "--timeout", "0.2", str(qemu.pid), timeout=60)
        assert done.returncode == 125
        assert f"(pid {left})" in done.stderr
        assert alive(left)
        assert links(host) == {"lo"}
        assert not has_state(host)
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_lock_on_its_way_to_nobody_does_not_keep_a_run(host: Host, place: Path) -> None:
    with betrayed(host, place, "leave-on-its-way") as qemu:
        (child,) = Path(f"/proc/{qemu.pid}/task/{qemu.pid}/children").read_text("ascii").split()
    try:
        assert ps(host)["runs"][0]["state"] == "held"
        done = netwrap(host, "stop", str(qemu.pid), timeout=60)
        assert (done.returncode, "no process that is seen here" in done.stderr) == (125, True)
        assert not has_state(host)
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_run_of_an_older_version_is_stopped(host: Host) -> None:
    """It has not written down which process is its QEMU."""
    for words in ((), ("-daemonize", "-pidfile", "/run/pid")):
        child = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-nic", "host-only", *words)
        keeper_of(host, child.pid)
        if words:
            child.wait(30)
        (pid,) = [run["pid"] for run in ps(host)["runs"]]
        host.run("rm", f"{state_folder(host)}/runs/{child.pid}/qemu")
        assert ps(host)["runs"][0]["pid"] == pid
        netwrap(host, "stop", str(child.pid), check=True)
        wait_for(lambda: not alive(pid), "QEMU's end")  # noqa: B023
        child.wait(30)
        assert not has_state(host)
    host.run("rm", "-f", "/run/pid")


def test_a_qemu_of_another_namespace_of_process_ids(host: Host, place: Path) -> None:
    """It is ended from outside. From inside another one it is not seen, and keeps its network."""
    qemu = f"{PYTHON} {place}/hostile.py {place}/socket -nic host-only >{place}/up"
    apart = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-euc")
    first = host.popen(*apart, f"sleep 0; {COMMAND} -q -- {qemu} & wait")
    wait_for(lambda: "up" in _text(place / "up"), "QEMU")
    (run,) = ps(host)["runs"]
    assert (run["state"], alive(run["pid"])) == ("running", True)
    done = host.run(*apart, f"{COMMAND} stop {run['run']}", check=False)
    assert (done.returncode, "another namespace of process ids" in done.stderr) == (125, True)
    host.run(*apart, f"{COMMAND} gc", check=True)
    assert "qn-host-only" in links(host)
    assert ps(host)["runs"][0]["state"] == "running"
    netwrap(host, "stop", run["run"], check=True)
    assert not has_state(host)
    first.wait(30)


def test_a_qemu_that_is_the_first_process_goes_on(host: Host, place: Path) -> None:
    qemu = f"{PYTHON} {place}/hostile.py {place}/socket -nic host-only >{place}/up"
    apart = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-euc")
    child = host.popen(*apart, f"exec {COMMAND} -q -- {qemu}")
    wait_for(lambda: "up" in _text(place / "up"), "QEMU")
    (inside,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text("ascii").split()
    enter = ("nsenter", f"--target={inside}", "--mount", "--pid")
    done = host.run(*enter, COMMAND, "stop", "1", check=False)
    assert (done.returncode, "the first process" in done.stderr) == (125, True)
    assert host.run(*enter, COMMAND, "gc", check=True).stdout == "nothing was left\n"
    assert alive(int(inside))
    assert "qn-host-only" in links(host)
    netwrap(host, "stop", "1", check=True)  # from outside it is a process like others
    assert not has_state(host)
    child.wait(30)


def _text(path: Path) -> str:
    """Return the text of a file, empty while there is none."""
    return path.read_text("utf-8") if path.exists() else ""


def test_a_shared_lock_hinders_neither_stop_nor_gc(host: Host, place: Path) -> None:
    with betrayed(host, place, "share") as qemu:
        os.kill(keeper_of(host, qemu.pid), signal.SIGKILL)
        assert ps(host)["runs"][0]["state"] == "running"
        assert netwrap(host, "gc", timeout=120).stdout == "nothing was left\n"
        netwrap(host, "stop", str(qemu.pid), check=True, timeout=120)
        assert qemu.wait(30) == -signal.SIGTERM
    assert not has_state(host)


def test_a_child_that_outlives_qemu_is_shown_and_ended(host: Host, place: Path) -> None:
    """It has all that QEMU had: its network stays, and that is said."""
    with betrayed(host, place, "heir") as qemu:
        (child,) = Path(f"/proc/{qemu.pid}/task/{qemu.pid}/children").read_text("ascii").split()
    (run,) = ps(host)["runs"]
    assert (run["state"], run["pid"]) == ("running", int(child))
    assert f"(pid {child}) goes on" in run["faults"][0]
    netwrap(host, "stop", str(qemu.pid), check=True)
    assert not alive(int(child))
    assert not has_state(host)


def test_a_child_that_has_nothing_of_ours_is_ended_with_qemu(host: Host, place: Path) -> None:
    with betrayed(host, place, "deaf-child", options=("--run-as", "nobody")) as qemu:
        children = Path(f"/proc/{qemu.pid}/task/{qemu.pid}/children").read_text("ascii")
        done = netwrap(host, "stop", "--timeout", "0.2", str(qemu.pid), check=True)
        assert "had to be killed" in done.stderr
        assert qemu.wait(30) == -signal.SIGTERM
    assert not alive(int(children.split()[0]))
    assert not has_state(host)


@pytest.mark.parametrize("then", ["; sleep 1000", "& exit 0", "-daemonize"])
def test_stop_finds_qemu_behind_a_shell(host: Host, place: Path, then: str) -> None:
    script = place / "vm"
    script.write_text(f'#!/bin/sh\n{QEMU} "$@" -pidfile /run/pid {then}\n', "utf-8")
    script.chmod(0o755)
    child = host.popen(COMMAND, "-q", "--", str(script), *IDLE, "-nic", "host-only")
    wait_for(lambda: host.run("test", "-s", "/run/pid", check=False).returncode == 0, "QEMU")
    pid = int(host.read("/run/pid"))
    keeper_of(host, child.pid)
    assert ps(host)["runs"][0]["state"] == "running"
    netwrap(host, "stop", str(pid), check=True)
    wait_for(lambda: not alive(pid), "QEMU's end")
    child.wait(30)
    assert not has_state(host)
    host.run("rm", "-f", "/run/pid")


def test_a_tap_of_the_same_name_elsewhere_is_another_one(
    uplinked: Uplinked, host: Host, place: Path
) -> None:
    """Held by a process of this network namespace, as slirp4netns has it."""
    program = "import os, signal, sys; print('up', flush=True); signal.pause()"
    fd = open_tap(host, "tap0")
    other = uplinked.host.popen(
        sys.executable, "-c", program, stdout=subprocess.PIPE, pass_fds=(fd,)
    )
    os.close(fd)
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    qemu = start(uplinked.host, *TAP)
    assert ps(uplinked.host)["runs"][0]["pid"] == qemu.pid
    netwrap(uplinked.host, "stop", "tap0", check=True)
    assert qemu.wait(60) == 0
    assert other.poll() is None
    other.kill()
    other.wait(30)


@pytest.mark.parametrize("dies_first", [False, True], ids=["QEMU lives", "QEMU is gone"])
def test_who_was_sent_the_tap_is_left_alone(
    uplinked: Uplinked, place: Path, dies_first: bool
) -> None:
    """A tap of the hook's: with its descriptor it lives on."""
    host = uplinked.host
    service = Service(host, str(place / "socket"))
    qemu = start(host, "-nic", f"tap,ifname=tap0,script={IFUP},downscript=no")
    fd = next(
        int(each.name)
        for each in Path(f"/proc/{qemu.pid}/fd").iterdir()
        if str(each.readlink()) == "/dev/net/tun"
    )
    copy = _copy_of(qemu.pid, fd)
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(str(place / "socket"))
        socket.send_fds(there, [b"x"], [copy])
        there.recv(1)
    os.close(copy)
    if dies_first:
        qemu.kill()
        qemu.wait(30)
        (run,) = ps(host)["runs"]
        assert (run["state"], run["pid"]) == ("held", 0)
        assert f"(pid {service.pid})" in run["faults"][0]
        assert f"(pid {service.pid})" in netwrap(host, "gc").stderr
    done = netwrap(host, "stop", "tap0")
    assert qemu.wait(60) <= 0
    assert service.is_untouched()
    assert (done.returncode, f"(pid {service.pid})" in done.stderr) == (125, True)
    assert not has_state(host)
    service.end()


def test_who_has_a_tap_that_was_put_there_by_hand_is_left_alone(host: Host) -> None:
    host.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    netwrap(host, "ifup", "tap0", check=True, env={"QEMU_NETWRAP_NETWORK": "host-only"})
    qemu = start(host, "-nic", "tap,ifname=tap0,script=no,downscript=no")
    done = netwrap(host, "stop", "tap0")
    assert (done.returncode, f"(pid {qemu.pid})" in done.stderr) == (125, True)
    assert qemu.poll() is None
    assert not has_state(host)
    qemu.kill()
    qemu.wait(30)
    host.run("ip", "link", "del", "tap0")


def test_a_hook_behind_a_script_knows_its_qemu(host: Host, place: Path) -> None:
    ifup = place / "ifup"
    ifup.write_text(f'#!/bin/sh\n{COMMAND} ifup "$1"\nexit $?\n', "utf-8")
    ifup.chmod(0o755)
    network = {"QEMU_NETWRAP_NETWORK": "host-only"}
    qemu = start(host, "-nic", f"tap,ifname=tap0,script={ifup},downscript=no", env=network)
    assert ps(host)["runs"][0]["pid"] == qemu.pid
    netwrap(host, "stop", "tap0", check=True)
    assert qemu.wait(60) == 0
    wait_gone(host)


def _copy_of(pid: int, fd: int) -> int:
    """Return a copy of a process's descriptor, as a thief has it."""
    import ctypes

    pidfd = os.pidfd_open(pid)
    copy = ctypes.CDLL(None).syscall(438, pidfd, fd, 0)  # pidfd_getfd(2)
    os.close(pidfd)
    assert copy >= 0
    return int(copy)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300", "1000001", "9" * 5000, "", "1_0"])
def test_stop_refuses_what_is_no_time_to_wait_before_it_signals(host: Host, seconds: str) -> None:
    with running(host) as tap:
        pid = tap.removeprefix("qn").removesuffix("-0")
        done = netwrap(host, "stop", "--timeout", seconds, pid)
        assert (done.returncode, "is not a number of seconds" in done.stderr) == (125, True)
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 2
        assert ps(host)["runs"][0]["state"] == "running"


@pytest.mark.parametrize("seconds", ["0", "0.5", "1000000"])
def test_stop_takes_a_time_to_wait(host: Host, seconds: str) -> None:
    with running(host) as tap:
        pid = tap.removeprefix("qn").removesuffix("-0")
        netwrap(host, "stop", "--timeout", seconds, pid, check=True)
    assert not has_state(host)


def test_a_process_with_the_words_of_one_of_ours_is_not_ours(uplinked: Uplinked) -> None:
    """Those of a dnsmasq, and of what looks out for the way out, whose numbers are not known."""
    host = uplinked.host
    with running(host):
        folder = f"{state_folder(host)}/networks/qn-nat"
        words = (f"--conf-file={folder}/dnsmasq.conf", folder, "/x/follower.py")
        setpriv = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        idle = "import signal; print('up', flush=True); signal.pause()"
        decoy = host.popen(*setpriv, PYTHON, "-c", idle, *words, stdout=subprocess.PIPE)
        assert decoy.stdout is not None
        assert decoy.stdout.readline() == "up\n"
        host.run("rm", f"{folder}/lookout")
        os.kill(int(host.read(f"{folder}/dnsmasq.pid")), signal.SIGKILL)
    assert not has_state(host)
    assert decoy.poll() is None
    decoy.kill()
    decoy.wait(30)
