"""`--run-as`: a QEMU that its guest has taken over has no way to root, nor to root's terminal.

A stand-in (lab/captive.py) plays that QEMU. It makes the same attempts after a plain change of the
user too: there they succeed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import lab
from lab.netns import wait_for
from lab.terminal import Terminal
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

HOME: Final = "/run/captive"
PROGRAM: Final = f"{HOME}/qemu-captive"
REPORT: Final = f"{HOME}/report"
SECRET_FILE: Final = f"{HOME}/secret"
SETUID: Final = f"{HOME}/python-setuid"
NOBODY: Final = "65534"
SECRETS: Final = {"AWS_SECRET_ACCESS_KEY": "root's", "LD_LIBRARY_PATH": "/opt/lib"}
OPEN: Final = {"REPORT": REPORT, "SETUID": SETUID}
RUN_AS: Final = (COMMAND, "--run-as", "nobody", "--keep-env", "REPORT,SETUID", "--")
# A plain change of the user, as `--run-as` once was.
PLAIN: Final = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
# What adds a secret to a session keyring of its own, and becomes the words that follow.
IN_A_KEYRING: Final = """
import ctypes, os, sys
call = ctypes.CDLL(None).syscall
call(250, 1, None)
assert call(248, b"user", b"netwrap-secret", b"root's secret", 13, -3) > 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


# A container's seccomp filter, as Docker's: keyctl(2) is refused. It becomes the words that follow.
WITHOUT_KEYS: Final = """
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 250), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def captive(host: Host) -> Iterator[Host]:
    """Put the stand-in where every user can run it, with a setuid program beside it."""
    source = Path(lab.__file__).with_name("captive.py").read_text("utf-8")
    host.write(PROGRAM, f"#!/usr/bin/python3\n{source}", mode=0o755)
    host.run("chmod", "1777", HOME)
    host.run("cp", os.path.realpath(shutil.which("python3", path="/usr/bin") or ""), SETUID)
    host.run("chmod", "4755", SETUID)
    yield host
    others = " ".join(f"! -path {written}" for written in host.written)
    host.sh(f"find {HOME} ! -type d {others} -delete; find {HOME} -type d -empty -delete")
    host.sh("rm -rf /run/user")


def _report(host: Host) -> dict[str, Any]:
    """Return what the stand-in reports; it has ended."""
    report: dict[str, Any] = json.loads(host.read(REPORT))
    host.run("rm", REPORT)
    return report


def _as_root(*words: str) -> tuple[str, ...]:
    """Return WORDS as root types them, with a secret in the session keyring."""
    return (sys.executable, "-c", IN_A_KEYRING, "env", *(f"{k}={v}" for k, v in _env()), *words)


def _env() -> list[tuple[str, str]]:
    return [*SECRETS.items(), *OPEN.items()]


def _on_a_terminal(host: Host, *words: str) -> dict[str, Any]:
    """Return what the stand-in reports that was started on a terminal."""
    with Terminal(host, *_as_root(*words)) as terminal:
        assert terminal.child.wait(60) == 0, terminal.shown
        return _report(host)


def test_a_qemu_that_was_taken_over(captive: Host) -> None:
    before = _on_a_terminal(captive, *PLAIN, PROGRAM)
    assert before["keyring"] == "root's secret"
    assert before["setuid"] == "0"
    assert before["environ"].items() >= SECRETS.items()
    ways = set(before["typed"])
    assert len(ways) == 10
    refused = {way for way, done in before["typed"].items() if done == -errno.EPERM}
    assert refused == set()

    after = _on_a_terminal(captive, *RUN_AS, PROGRAM)
    assert after["typed"] == dict.fromkeys(ways, -errno.EPERM)
    assert after["keyring"] == ""
    assert after["setuid"] == NOBODY
    assert not after["environ"].keys() & SECRETS.keys()
    _is_confined(after["status"])


def _is_confined(status: dict[str, str]) -> None:
    """See that a process is that user's and has nothing by which it could become more."""
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {NOBODY}
    assert {int(status[f"Cap{each}"], 16) for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_inheritable_capabilities_and_the_bounding_set(captive: Host) -> None:
    """What root was given stays with root, also where it is inheritable and ambient."""
    words = ("setpriv", "--inh-caps=+net_admin", "--ambient-caps=+net_admin", *RUN_AS, PROGRAM)
    captive.run(*words, env=OPEN)
    _is_confined(_report(captive)["status"])


def test_an_ordinary_user_confines_oneself(captive: Host) -> None:
    captive.run(*PLAIN, *RUN_AS, PROGRAM, env=OPEN)
    report = _report(captive)
    assert report["setuid"] == NOBODY
    assert report["status"]["NoNewPrivs"] == "1"


def test_the_environment(captive: Host) -> None:
    kept = {"TERM": "vt100", "LC_TIME": "C", "DISPLAY": ":7", "XAUTHORITY": "/x", "LANG": "C"}
    more = {"SDL_VIDEODRIVER": "dummy", "XDG_RUNTIME_DIR": "/run/user/0", "SUDO_USER": "me"}
    captive.run("install", "-d", "-o", "nobody", f"/run/user/{NOBODY}")
    captive.run("env", "-i", *(f"{k}={v}" for k, v in {**kept, **more, **OPEN}.items()),
                "PATH=/usr/bin:/bin", COMMAND, "--run-as=nobody", "--keep-env", "REPORT",
                "--keep-env=SETUID,SDL_VIDEODRIVER,NOT_SET", "--", PROGRAM)  # fmt: skip
    found = _report(captive)["environ"]
    found.pop("LC_CTYPE", None)  # the stand-in's own Python sets it
    assert found == {
        **kept, **OPEN, "PATH": "/usr/bin:/bin", "SDL_VIDEODRIVER": "dummy",
        "HOME": "/nonexistent", "USER": "nobody", "LOGNAME": "nobody",
        "SHELL": "/usr/sbin/nologin", "XDG_RUNTIME_DIR": f"/run/user/{NOBODY}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-env", "TERM"), "--keep-env is for --run-as"),
        (("--run-as", "nobody", "--keep-env", "A=b"), "no name of a variable"),
    ],
)
def test_keep_env_is_refused(host: Host, options: tuple[str, ...], message: str) -> None:
    done = netwrap(host, *options, "--", QEMU)
    assert done.returncode == 125
    assert message in done.stderr
    assert "\n  hint: " in done.stderr


def test_a_container_that_forbids_keys(captive: Host) -> None:
    captive.run(sys.executable, "-c", WITHOUT_KEYS, *RUN_AS, PROGRAM, env=OPEN)
    report = _report(captive)
    assert report["keyring"] == ""
    _is_confined(report["status"])


@pytest.mark.parametrize("sandbox", ["off", "on"])
def test_a_real_qemu(host: Host, sandbox: str) -> None:
    """Its own seccomp filter comes on top; it daemonizes; its network comes and goes."""
    host.run("install", "-d", "-o", "nobody", "/run/vm")
    words = (*IDLE, "-sandbox", sandbox, "-daemonize", "-pidfile", "/run/vm/pid", "-nic", "nat")
    netwrap(host, "--run-as", "nobody", "--", QEMU, *words, check=True)
    pid = host.read("/run/vm/pid").strip()
    lines = (line.partition(":") for line in host.read(f"/proc/{pid}/status").splitlines())
    _is_confined({key: value.strip() for key, _, value in lines})
    netwrap(host, "stop", pid, check=True)
    host.run("rm", "-r", "/run/vm")


def test_the_terminal_is_qemus(host: Host) -> None:
    """The monitor on the terminal, ^Z and fg, with QEMU's own sandbox at its strictest."""
    strict = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    idle = (*IDLE[:6], "-S", "-sandbox", strict, "-monitor", "stdio", "-nic", "nat")
    with Terminal(host, "bash", "--norc", "-i") as terminal:
        terminal.type(f"{COMMAND} --run-as nobody -- {QEMU} {' '.join(idle)}\n")
        terminal.wait_shown("(qemu)")
        terminal.type("\x1a")
        terminal.wait_shown("Stopped")
        terminal.type("fg\n")
        terminal.type("info status\n")
        terminal.wait_shown("VM status: ")
        terminal.type("quit\n")
        terminal.type('echo "it was $?"; exit\n')
        terminal.wait_shown("it was 0")
    netwrap(host, "wait", check=True)


# Words that only some QEMUs have: QEMU is asked for them by -help.
UNCERTAIN: Final = (
    ("-run-with", "chroot=/"),
    ("-runas", "nobody"),
    ("-watchdog", "i6300esb"),
    ("-chroot", "/"),
    ("-nope",),
    ("-nic", "tap", "-netdev", "unheard-of,id=n0"),
)


def _asked(host: Host) -> list[dict[str, Any]]:
    """Return as what the stand-in was asked for -help, each time."""
    return [json.loads(line) for line in host.read(f"{HOME}/asked").splitlines()]


@pytest.mark.parametrize("words", UNCERTAIN, ids=" ".join)
@pytest.mark.parametrize("command", ["launch", "plan"])
def test_who_is_asked_is_the_users(captive: Host, words: tuple[str, ...], command: str) -> None:
    before = (COMMAND, "--run-as", "nobody", "--keep-env", "REPORT,SETUID")
    how = ("plan",) if command == "plan" else ()
    with Terminal(captive, *_as_root(*before, *how, "--", PROGRAM, *words)) as terminal:
        terminal.child.wait(60)
    asked = _asked(captive)
    assert asked
    for seen in asked:
        _is_confined(seen)
        assert seen["tty"] is False
        assert not seen["environ"].keys() & {*SECRETS, *OPEN}


@pytest.mark.parametrize("manner", ["hangs", "prints without end"])
def test_who_is_asked_and_does_not_end(captive: Host, manner: str) -> None:
    captive.write(f"{HOME}/manner", manner, mode=0o644)
    words = (*RUN_AS, PROGRAM, "-nope")
    captive.run(*words, env=OPEN, timeout=60)
    assert _report(captive)["setuid"] == NOBODY  # the launch went on
    wait_for(lambda: PROGRAM not in str(captive.processes()), "the one that was asked to be gone")


def test_files_are_read_as_the_user(captive: Host) -> None:
    """A link of the user's to a file of root's does not have root's eyes look into it."""
    captive.write(SECRET_FILE, '[netdev "secret"]\n  type = "nat"\n', mode=0o600)
    captive.run("ln", "-s", SECRET_FILE, f"{HOME}/vm.cfg")
    captive.run("chown", "-h", "nobody", f"{HOME}/vm.cfg")
    words = ("--run-as", "nobody", "plan", "--", QEMU, "-readconfig", f"{HOME}/vm.cfg")
    assert "network nat" not in netwrap(captive, *words, check=True).stdout
    captive.run("chmod", "644", SECRET_FILE)
    assert "network nat" in netwrap(captive, *words, check=True).stdout


@pytest.mark.parametrize("program", ["nft", "dnsmasq"])
def test_root_does_not_start_a_users_program(captive: Host, program: str) -> None:
    """Root's PATH may be a user's: `sudo env PATH="$PATH" qemu-netwrap ...`."""
    folder = f"{HOME}/bin"
    captive.write(f"{folder}/{program}", f"#!/bin/sh\nid -u >>{HOME}/was-run\n", mode=0o755)
    captive.run("chown", "-R", "nobody", folder)
    env = {**OPEN, "PATH": f"{folder}:{os.environ['PATH']}"}
    captive.run(*RUN_AS, PROGRAM, "-nic", "nat", env=env)
    captive.run(COMMAND, "ps", env=env)
    captive.run(COMMAND, "doctor", env=env, check=False)
    assert captive.run("cat", f"{HOME}/was-run", check=False).stdout == ""
    netwrap(captive, "wait", check=True)


def test_doctor_does_not_start_a_users_qemu(captive: Host) -> None:
    folder = f"{HOME}/bin"
    captive.write(f"{folder}/{QEMU}", f"#!/bin/sh\nid -u >>{HOME}/was-run\n", mode=0o755)
    captive.run("chown", "-R", "nobody", folder)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    shown = captive.run(COMMAND, "doctor", env=env, check=False).stdout
    assert f"{folder}/{QEMU}" in shown
    assert captive.run("cat", f"{HOME}/was-run", check=False).stdout == ""


def test_a_plan_does_not_start_a_users_qemu(captive: Host) -> None:
    """Root who looks first runs nothing of a user's."""
    captive.run("chown", "nobody", PROGRAM)
    shown = captive.run(COMMAND, "plan", "--", PROGRAM, "-nope", "-nic", "nat", env=OPEN)
    assert PROGRAM in shown.stdout
    assert captive.run("test", "-e", f"{HOME}/asked", check=False).returncode != 0
    captive.run("chown", "root", PROGRAM)
