"""A wrapped QEMU as a process: what it has from who started it is what a bare QEMU has."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.running import (
    FIRST_FD,
    PYTHONS,
    QUIET,
    WRAPPED,
    difference,
    end,
    fds,
    is_asleep,
    is_qemu,
    open_tap,
    script,
    signals,
)
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    import subprocess

    from lab.netns import Host

# Everything that somebody may give a program on its way, each by a tool that becomes the next.
_ALL_AT_ONCE: Final = (
    *("setpriv", "--no-new-privs"),
    *("nice", "-n", "7"),
    *("taskset", "-c", "1"),
    *("chrt", "--batch", "0"),
    *("choom", "-n", "300", "--"),
    *("prlimit", "--nofile=200:300", "--core=0", "--stack=4194304", "--memlock=1000000"),
    *("setarch", "-R"),
    *("sh", "-c", 'umask 027; cd /var; exec "$@" 5</etc/passwd', "sh"),
    "setsid",
)
_MOST_SIGNALS: Final = "INT,HUP,QUIT,TERM,USR1,USR2,ALRM,CHLD,TSTP,TTIN,TTOU,WINCH,IO,PIPE,XFSZ"
_AS: Final = {
    "plain": (),
    "all at once": _ALL_AT_ONCE,
    "nohup": ("nohup",),
    "in the background of sh": ("env", "--ignore-signal=INT,QUIT"),
    "signals ignored": ("env", f"--ignore-signal={_MOST_SIGNALS}"),
    "signals blocked": ("env", "--block-signal"),
    "no environment": ("env", "-i"),
    "the C locale": ("env", "-i", "PATH=/usr/bin:/usr/sbin", "LC_CTYPE=C", "B=\udcff", "A=", "A=2"),
    "a locale": ("env", "LC_ALL=C.UTF-8", "LC_CTYPE=", "PYTHONUTF8=0"),
}


def _both(
    host: Host, before: tuple[str, ...], words: tuple[str, ...], tap: int, net: str
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """Start QEMU, or what stands in for it, wrapped and bare."""
    wrapped = host.popen(*before, *WRAPPED, *words, "-nic", net, **QUIET)
    bare = host.popen(*before, *words, "-nic", f"tap,fd={tap}", pass_fds=(tap,), **QUIET)
    return wrapped, bare


@pytest.mark.parametrize("before", _AS.values(), ids=_AS.keys())
def test_a_program_finds_what_it_would_find_unwrapped(
    host: Host, tmp_path: Path, before: tuple[str, ...]
) -> None:
    program = script(tmp_path, "exec /bin/sleep 100")
    tap = open_tap(host, "mine")
    wrapped, bare = _both(host, before, (program,), tap, "bridge,br=br7")
    os.close(tap)
    for child in (wrapped, bare):
        wait_for(lambda: is_asleep(child.pid), "the program")  # noqa: B023
    assert not difference(wrapped.pid, bare.pid)
    theirs = {fd: what for fd, what in fds(wrapped.pid).items() if fd < FIRST_FD}
    ours = {fd: what for fd, what in fds(wrapped.pid).items() if fd >= FIRST_FD}
    assert theirs == {fd: what for fd, what in fds(bare.pid).items() if fd < FIRST_FD}
    assert sorted(Path(what).name for what in ours.values()) == ["lock", "tun"]
    assert f"/runs/{wrapped.pid}/" in "".join(ours.values())  # the process that was started
    bare.kill()
    bare.wait(30)
    assert end(host, wrapped, signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("before", [(), _ALL_AT_ONCE], ids=["plain", "all at once"])
def test_qemu_itself_is_as_it_is_unwrapped(host: Host, before: tuple[str, ...]) -> None:
    tap = open_tap(host, "mine")
    wrapped, bare = _both(host, before, (QEMU, *IDLE), tap, "nat")
    os.close(tap)
    for child in (wrapped, bare):
        wait_for(lambda: is_qemu(child.pid), "QEMU")  # noqa: B023
    wait_for(lambda: not difference(wrapped.pid, bare.pid), "QEMU to be the same")
    assert signals(wrapped.pid, "SigCgt") == signals(bare.pid, "SigCgt")
    wait_for(lambda: len(fds(wrapped.pid)) == len(fds(bare.pid)) + 1, "the same descriptors")
    found = fds(wrapped.pid)
    (lock,) = (fd for fd, what in found.items() if what.endswith("/lock"))
    del found[lock]
    assert found == fds(bare.pid)  # the tap included, at 64
    words = Path(f"/proc/{wrapped.pid}/cmdline").read_bytes().split(b"\0")[:-2]
    assert words == Path(f"/proc/{bare.pid}/cmdline").read_bytes().split(b"\0")[:-2]
    bare.kill()
    bare.wait(30)
    assert end(host, wrapped) == 0


def test_signals_that_python_takes_are_at_their_default(host: Host, tmp_path: Path) -> None:
    # Python ignores SIGPIPE and SIGXFSZ at its start, before any code of ours: by then nobody can
    # tell what the parent had. What a parent has ignored there is not handed on.
    program = script(tmp_path, "exec /bin/sleep 100")
    names = ",".join(signal.Signals(number).name.removeprefix("SIG") for number in PYTHONS)
    for net in ("none", "bridge,br=br7"):
        for before in ((), ("env", f"--ignore-signal={names}")):
            child = host.popen(*before, *WRAPPED, program, "-nic", net, **QUIET)
            wait_for(lambda: is_asleep(child.pid), "the program")  # noqa: B023
            assert not signals(child.pid, "SigIgn") & set(PYTHONS)
            end(host, child)


@pytest.mark.parametrize(
    "name", ["PIPE", "XFSZ", "SEGV", "ABRT", "INT", "HUP", "KILL", "USR1", "CHLD"]
)
def test_a_programs_own_signal_does_to_it_what_it_would(
    host: Host, tmp_path: Path, name: str
) -> None:
    program = script(tmp_path, f"ulimit -c 0; kill -{name} $$; exit 3")
    bare = host.run(program, check=False)
    wrapped = host.run(COMMAND, "--", program, "-nic", "bridge,br=br7", check=False)
    assert (wrapped.returncode, wrapped.stdout) == (bare.returncode, bare.stdout)
    assert wrapped.returncode == (3 if name == "CHLD" else -signal.Signals[f"SIG{name}"])
    host.run(COMMAND, "wait")
