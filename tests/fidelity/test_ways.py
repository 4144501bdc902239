"""The ways in which QEMU is started: its own options, wrappers, descriptors, namespaces."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.running import (
    FIRST_FD,
    QUIET,
    STATE,
    WRAPPED,
    end,
    fds,
    is_asleep,
    is_qemu,
    keeper_of,
    keepers_fds,
    links,
    open_tap,
    runs,
    script,
    start,
    state_folder,
    status,
)
from lab import qemus
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from lab.netns import Host

WAITERS: Final = {"null", "lock", "keeper"}


@pytest.mark.parametrize(
    ("user", "root", "words"),
    [
        ("nobody", "", ()),
        ("", "/var", ()),
        (
            *("", ""),
            ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        ),
        ("", "", ("-incoming", "defer")),
        ("nobody", "/var", ("-sandbox", "on,spawn=deny")),
    ],
)
def test_options_that_take_rights_from_qemu(
    host: Host, user: str, root: str, words: tuple[str, ...]
) -> None:
    left = qemus.leaving(user, root) if user or root else ()
    child = start(host, "-nic", "nat", *left, *words)
    if user:
        wait_for(lambda: status(child.pid)["Uid"].startswith("65534"), "QEMU as nobody")
    if root:
        link = Path(f"/proc/{child.pid}/root")
        wait_for(lambda: str(link.readlink()) == root, "QEMU in its root")
    assert f"qn{child.pid}-0" in links(host)
    assert end(host, child) == 0


def test_who_reads_to_the_end_does_not_wait_for_a_daemonized_qemu(
    host: Host, tmp_path: Path
) -> None:
    pidfile = tmp_path / "pid"
    words = (*IDLE, "-daemonize", "-pidfile", str(pidfile), "-nic", "nat")
    done = host.run(*WRAPPED, QEMU, *words)  # returns at the end of its output
    assert done.returncode == 0
    pid = int(pidfile.read_text("utf-8"))
    assert is_qemu(pid)
    (run,) = runs(host, state_folder(host))
    assert keepers_fds(keeper_of(host, run)) == WAITERS
    assert f"qn{run}-0" in links(host)
    os.kill(pid, signal.SIGTERM)
    host.run(COMMAND, "wait")
    assert links(host) == {"lo"}
    assert not pidfile.exists()


def test_descriptors_of_the_users_own_stay_where_they_are(host: Host, tmp_path: Path) -> None:
    tap = open_tap(host, "mine")
    image = tmp_path / "image"
    image.write_bytes(bytes(512))
    hand_on = f'exec 3<&{tap} {tap}<&- 9<"{image}"; exec "$@"'
    words = ("-netdev", "tap,id=mine,fd=3", "-add-fd", "fd=9,set=2", "-nic", "nat")
    child = start(host, *words, before=("bash", "-c", hand_on, "bash"), pass_fds=(tap,))
    os.close(tap)
    assert {"mine", f"qn{child.pid}-0"} <= links(host)
    found = fds(child.pid)
    assert found[3] == "/dev/net/tun"
    assert str(image) in found.values()  # QEMU moves what it is given for a set
    assert found[FIRST_FD] == "/dev/net/tun"
    argv = Path(f"/proc/{child.pid}/cmdline").read_text("utf-8").split("\0")
    assert "tap,id=mine,fd=3" in argv
    assert argv[argv.index("-nic") + 1].startswith(f"tap,fd={FIRST_FD},")
    assert keepers_fds(keeper_of(host, child.pid)) == WAITERS
    assert end(host, child) == 0
    assert links(host) == {"lo"}


def test_a_socket_handed_on_as_systemd_does_is_at_3(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        fd = listening.fileno()
        hand_on = f'exec 3<&{fd}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        before = ("bash", "-c", hand_on, "bash")
        words = (*WRAPPED, script(tmp_path, "exec /bin/sleep 100"), "-nic", "nat")
        child = host.popen(*before, *words, pass_fds=(fd,), **QUIET)
        wait_for(lambda: is_asleep(child.pid), "the program")
        inode = os.fstat(fd).st_ino
        assert os.readlink(f"/proc/{child.pid}/fd/3") == f"socket:[{inode}]"
        environment = Path(f"/proc/{child.pid}/environ").read_text("utf-8").split("\0")
        assert {"LISTEN_FDS=1", f"LISTEN_PID={child.pid}"} <= set(environment)
    assert end(host, child) == -signal.SIGTERM


@pytest.mark.parametrize(
    "before", [("timeout", "-s", "KILL", "1000"), ("setsid", "--fork", "--wait")]
)
def test_wrappers_that_stay_in_front(host: Host, tmp_path: Path, before: tuple[str, ...]) -> None:
    pidfile = tmp_path / "pid"
    words = (QEMU, *IDLE, "-nic", "nat", "-pidfile", str(pidfile))
    child = host.popen(*before, *WRAPPED, *words, start_new_session=True, **QUIET)
    wait_for(lambda: pidfile.exists() and bool(pidfile.read_text("utf-8")), "QEMU")
    pid = int(pidfile.read_text("utf-8"))
    if before[0] == "setsid":
        wait_for(lambda: is_qemu(pid), "QEMU to mind its signals")
        os.kill(pid, signal.SIGTERM)
        assert child.wait(30) == 0
    else:
        child.send_signal(signal.SIGALRM)  # as if its time were over
        assert child.wait(30) == -signal.SIGKILL
    host.run(COMMAND, "wait")
    assert links(host) == {"lo"}


@pytest.mark.parametrize("net", ["none", "nat"])
@pytest.mark.parametrize(
    "how",
    [
        "<&-",
        ">&-",
        "2>&-",
        "<&- >&-",
        "<&- >&- 2>&-",
        "2>/dev/full",
        "2> >(true)",
        "; cd $(mktemp -d); rmdir $PWD",
    ],
)
def test_odd_standard_descriptors_and_folders(
    host: Host, tmp_path: Path, how: str, net: str
) -> None:
    program = script(tmp_path, "exec /bin/sleep 100")
    begin = f'exec {how}; sleep 0.05; exec "$@"'
    shell = ("bash", "-c", begin, "bash")
    wrapped = host.popen(*shell, COMMAND, "-v", "--", program, "-nic", net, **QUIET)
    bare = host.popen(*shell, program, **QUIET)
    for child in (wrapped, bare):
        wait_for(lambda: child.poll() is not None or is_asleep(child.pid), "it")  # noqa: B023
        assert child.poll() is None, child.returncode
    theirs = {fd: what.partition(":[")[0] for fd, what in fds(wrapped.pid).items() if fd < FIRST_FD}
    assert theirs == {fd: what.partition(":[")[0] for fd, what in fds(bare.pid).items()}
    if net == "nat":
        assert keepers_fds(keeper_of(host, wrapped.pid)) == WAITERS
        host.run(COMMAND, "gc")  # to it the run lives, and so does its keeper
        assert f"qn{wrapped.pid}-0" in links(host)
    bare.kill()
    bare.wait(30)
    end(host, wrapped)


@pytest.mark.parametrize("limit", [32, 64, 65])
def test_few_descriptors(host: Host, limit: int) -> None:
    child = start(host, "-nic", "nat", before=("prlimit", f"--nofile={limit}"))
    taps = [fd for fd, what in fds(child.pid).items() if what == "/dev/net/tun"]
    assert taps == [limit // 2]
    assert end(host, child) == 0


def test_a_descriptor_above_the_limit_is_not_kept_by_the_keeper(host: Host) -> None:
    reader, writer = os.pipe()
    high = fcntl.fcntl(writer, fcntl.F_DUPFD, 200)
    os.close(writer)
    before = ("prlimit", "--nofile=100")
    child = start(host, "-nic", "nat", before=before, pass_fds=(high,))
    assert high in fds(child.pid)
    assert keepers_fds(keeper_of(host, child.pid)) == WAITERS
    os.close(high)
    os.close(reader)
    assert end(host, child) == 0


def test_another_network_namespace_has_its_network_and_state_to_itself(host: Host) -> None:
    other = host.popen("unshare", "--net", "sleep", "100", **QUIET)
    place = Path(f"/proc/{other.pid}/ns/net")
    comm = Path(f"/proc/{other.pid}/comm")
    wait_for(lambda: comm.read_text("utf-8") == "sleep\n", "a namespace")
    enter = ("nsenter", f"--net={place}")
    child = start(host, "-nic", "nat", before=enter)
    tap = f"qn{child.pid}-0"
    assert links(host) == {"lo"}
    there = host.run(*enter, "ip", "-br", "link").stdout
    assert tap in there
    assert "qn-nat" in there
    key = "net.ipv4.conf.qn-nat.forwarding"
    assert host.run(*enter, "sysctl", "-n", key).stdout == "1\n"
    assert host.run(COMMAND, "ps").stdout == "nothing runs\n"
    host.run(COMMAND, "gc")
    assert str(child.pid) in host.run(*enter, COMMAND, "ps").stdout
    here = Path(state_folder(host)).name
    assert here not in os.listdir(f"/proc/{host.pid}/root{STATE}")
    child.terminate()
    assert child.wait(30) == 0
    host.run(*enter, COMMAND, "wait")
    assert "qn-nat" not in host.run(*enter, "ip", "-br", "link").stdout
    assert not host.run(*enter, "nft", "list", "ruleset").stdout
    other.kill()
    other.wait(30)


def test_the_first_process_of_a_container_and_gc_from_outside(host: Host) -> None:
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    child = host.popen(*inside, *WRAPPED, QEMU, *IDLE, "-nic", "nat", **QUIET)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    wait_for(lambda: bool(children.read_text("utf-8").split()), "a process inside")
    qemu = int(children.read_text("utf-8").split()[0])
    wait_for(lambda: is_qemu(qemu), "QEMU")
    assert runs(host, state_folder(host)) == ["1"]
    assert "qn1-0" in links(host)
    keeper_of(host, 1)
    assert host.run(COMMAND, "gc").stdout == "nothing was left\n"
    os.kill(qemu, signal.SIGTERM)
    child.wait(30)
    # With the first process the kernel ends all that is in there, the keeper too.
    assert "qn-nat" in links(host)
    assert "released: run 1" in host.run(COMMAND, "gc").stdout
    assert links(host) == {"lo"}


def test_output_into_a_pipe_that_is_closed(host: Host) -> None:
    reader, writer = os.pipe()
    child = start(host, "-nic", "nat", "-serial", "stdio", stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    assert end(host, child) == 0


def test_a_shells_job_in_the_background(host: Host) -> None:
    words = shlex.join([*WRAPPED, QEMU, *IDLE, "-nic", "nat"])
    text = f"{words} >/dev/null 2>&1 & echo $!; read go; kill $!; wait $!; echo ended $?"
    pipe = subprocess.PIPE
    with host.popen("sh", "-c", text, stdin=pipe, stdout=pipe) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        wait_for(lambda: is_qemu(pid), "QEMU")
        shell.stdin.write("go\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == "ended 0\n"
    host.run(COMMAND, "wait")
