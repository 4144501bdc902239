"""Runs the program with every write and effect of it counted, and kills at a chosen one.

Nothing in the product knows of this: the functions by which it writes or does something are wrapped
here. Each call is an event: a line in the trial's log, numbered per role. When an event's number is
a rule's, the rule's victims get SIGKILL, right before the effect; a journal's line is also cut in
its middle. Roles: `launcher`, `middle` (the process between the two forks), `keeper`, `waiter` (the
keeper once it sleeps, and the teardown), `gc`. Other children have a role of their own, their
parent's with a number: `launcher-1` is the first of the launcher.

As a program with the word `serve` it is a server on a simulated machine, which has everything
imported and forks for every command; else it stands for the product's waiter.

A trial is a folder:

    rules       JSON: `role`, `at`, `victims` of the first kill; `after`: at which event since then
                the second comes, in whatever process cleans up
    log         every event
    pids        `ROLE PID`
    fired, second   the victims of the kills that happened
    err         what was said
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TRIAL: Final = "CRASH_TRIAL"
PASSES: Final = "CRASH_PASSES"  # in the environment: devices are passed through
FOLDER: Final = "CRASH_STATE"  # in the environment: the state's folder, if it is not root's
STATE: Final = os.environ.get(FOLDER, "/run/qemu-netwrap")
SELF: Final = "self"
LAUNCHER, MIDDLE, KEEPER, WAITER, GC = ROLES = ("launcher", "middle", "keeper", "waiter", "gc")
DNSMASQ, QEMU = "dnsmasq", "qemu"
STAND_INS: Final = ("sleep", "qemu-system-x86")  # as the kernel calls them

_PATIENCE: Final = 120.0
# The functions themselves, for what is done here.
_open, _write, _close, _unlink, _fork = os.open, os.write, os.close, os.unlink, os.fork


class Injector:
    """Counts the events of one process, and kills."""

    def __init__(self, folder: str, role: str) -> None:
        """Count for the trial in FOLDER."""
        self.folder = folder
        self.role = role
        with open(f"{folder}/rules", encoding="utf-8") as file:
            self.rules: dict[str, Any] = json.load(file)
        self._number = 0
        self._since = 0
        self._children = 0
        self._tell_pid(role, os.getpid())

    def event(self, name: str, half: Callable[[], object] = lambda: None) -> None:
        """Count an event that is about to happen; HALF of it is done before this process is killed.

        Who lives on would write the whole line behind that half, which no program does. It is asked
        of the victims here: where dnsmasq comes earlier or later than in the run that was counted,
        an event's number is another event's.
        """
        self._number += 1
        served = " dnsmasq" if self.rules.get("dry") and dnsmasqs() else ""
        self._append("log", f"{self.role} {self._number} {name}{served}\n")
        rules = self.rules
        if os.path.exists(f"{self.folder}/fired"):
            self._since += 1
            if self._since == rules.get("after") and not os.path.exists(f"{self.folder}/second"):
                half()
                self._strike("second", [SELF])
        elif (rules.get("role"), rules.get("at")) == (self.role, self._number):
            if SELF in rules["victims"]:
                half()
            self._strike("fired", rules["victims"])

    def forked(self, child: int, *, on: bool) -> None:
        """Take over a role in a forked child, and note who that is in its parent.

        ON says that it goes on with the run: it has the next role.
        """
        self._children += not on
        role = ROLES[ROLES.index(self.role) + 1] if on else f"{self.role}-{self._children}"
        if child:
            self._tell_pid(role, child)
        else:
            self.role, self._number, self._children = role, 0, 0

    def _strike(self, file: str, victims: list[str]) -> None:
        """Kill; oneself at last."""
        pids = {victim: self._find(victim) for victim in victims}
        killed = [victim for victim, found in pids.items() if found]
        if not killed:
            return
        self._append(file, " ".join(killed))
        me = os.getpid()
        others = {pid for found in pids.values() for pid in found if pid != me}
        for pid in others:
            kill(pid, wait=not any(me in found for found in pids.values()))
        if any(me in found for found in pids.values()):
            os.kill(me, signal.SIGKILL)

    def _find(self, victim: str) -> list[int]:
        """Return the living processes that a victim's word means."""
        if victim == SELF:
            return [os.getpid()]
        if victim == DNSMASQ:
            return dnsmasqs()
        pid = pids(self.folder).get(LAUNCHER if victim == QEMU else victim, 0)
        deadline = time.monotonic() + _PATIENCE
        while victim == QEMU and lives(pid) and not is_qemu(pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        return [pid] if lives(pid) else []

    def _tell_pid(self, role: str, pid: int) -> None:
        """Note a process's role."""
        self._append("pids", f"{role} {pid}\n")

    def _append(self, file: str, line: str) -> None:
        """Add to a file of the trial; opened anew each time, for the keeper closes all it has."""
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = _open(f"{self.folder}/{file}", how, 0o600)
        _write(fd, line.encode())
        _close(fd)


def _leads_to(fd: int) -> str:
    """Return the path of a descriptor; empty in a process whose root has no /proc any more."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def pids(folder: str) -> dict[str, int]:
    """Return the processes of a trial by their roles."""
    with open(f"{folder}/pids", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return {role: int(pid) for role, pid in rows}


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_qemu(pid: int) -> bool:
    """Whether the launcher has become QEMU, or what stands for it."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip() in STAND_INS
    except OSError:
        return False


def dnsmasqs() -> list[int]:
    """Return the dnsmasq processes of ours on this machine."""
    here = os.stat("/proc/self/ns/mnt").st_ino
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            if (
                f"--conf-file={STATE}/".encode() in words
                and os.stat(f"/proc/{pid}/ns/mnt").st_ino == here
            ):
                found.append(int(pid))
        except OSError:
            continue
    return found


def kill(pid: int, *, wait: bool = True) -> None:
    """Kill a process that may be gone; wait for its end."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        if wait:
            select.select([fd], [], [], _PATIENCE)
    except ProcessLookupError:
        pass
    finally:
        _close(fd)


def install(injector: Injector) -> None:
    """Wrap whatever the product does something by."""
    from qemu_netwrap.linux import files, sysctl, waits
    from qemu_netwrap.linux.netlink import interface_copy
    from qemu_netwrap.linux.netlink.links import Rtnl

    def wrap(
        place: Any,  # noqa: ANN401 - a module or a class
        name: str,
        counts: Callable[..., bool] = lambda *_: True,
    ) -> None:
        real = getattr(place, name)

        def counted(*args: Any, **kw: Any) -> Any:  # noqa: ANN401 - whatever the real one takes
            if counts(*args):
                injector.event(f"{name} {_tell(args)}")
            return real(*args, **kw)

        setattr(place, name, counted)

    real_fork, real_write = os.fork, os.write

    def fork() -> int:
        place = sys._getframe(1).f_globals["__name__"].rpartition(".")[2]
        injector.event(f"fork in {place}")
        child = real_fork()
        injector.forked(child, on=place == KEEPER)
        return child

    def write(fd: int, data: bytes) -> int:
        if _leads_to(fd).startswith(STATE):
            shown = data.split(b"\t")[0].decode().strip()
            injector.event(f"half of {shown}", lambda: real_write(fd, data[: len(data) // 2]))
            injector.event(f"write {shown}")
        return real_write(fd, data)

    os.fork = fork
    os.write = write  # type: ignore[assignment] # its second parameter takes more
    wrap(os, "open", lambda path, how, *_: bool(how & os.O_CREAT) and _is_new(path))
    wrap(os, "mkdir", lambda path, *_: _is_new(path))
    for name in "chmod rename ftruncate posix_spawn waitpid execv execve setsid".split():
        wrap(os, name)
    wrap(os, "unlink", os.path.lexists)
    wrap(os, "rmdir", lambda path: os.path.isdir(path) and not os.listdir(path))
    wrap(fcntl, "flock", lambda _, how: not how & fcntl.LOCK_SH)
    wrap(fcntl, "ioctl")
    wrap(files.Lock, "__exit__")
    wrap(Rtnl, "_do")
    wrap(interface_copy.InterfaceNetlink, "batch")
    wrap(sysctl, "write")
    wrap(waits, "process", lambda _, timeout, number=0: bool(number))
    if os.environ.get(PASSES):
        _install_passing(injector, wrap)
    if injector.role == LAUNCHER:
        from qemu_netwrap.runtime import keeper, kept_code, provision

        wrap(provision, "inherit")
        wrap(keeper, "_send")
        wrap(keeper, "_hand_over")
        keep = kept_code.keep
        kept_code.keep = lambda *args: keep(*args).replace(script=__file__)


def _install_passing(injector: Injector, wrap: Callable[..., None]) -> None:
    """Wrap what devices are passed through by: tests/vfio."""
    from qemu_netwrap.linux import pci
    from qemu_netwrap.linux.netlink import interface_state, vf_settings

    wrap(pci, "_write", lambda path, _: not path.endswith(("bind", "drivers_probe", "numvfs")))
    wrap(vf_settings, "set_vf")
    for name in ("_rename", "_set_link", "_put_settings", "_give", "set_up"):
        wrap(interface_state, name)
    patiently = pci._write_in_child

    def write(path: str, text: str) -> None:
        injector.event(f"write {text} to {path}")
        counted, os.fork = os.fork, fork
        try:
            patiently(path, text)
        finally:
            os.fork = counted

    def fork() -> int:
        """Start the child who writes; it is no role of ours."""
        child = _fork()
        if child:
            injector.event("a child writes")
        return child

    pci._write_in_child = write


def _is_new(path: str) -> bool:
    """Whether something can be made there, and is not there yet."""
    return os.path.isdir(os.path.dirname(path)) and not os.path.lexists(path)


def _tell(args: tuple[Any, ...]) -> str:
    """Return the telling part of a call's arguments."""
    words = (str(each) for each in args if isinstance(each, (str, int)))
    shown = " ".join(" ".join(words).split())[:70]
    return shown[shown.rfind(STATE) + len(STATE) :] if STATE in shown else shown


def wait_as_waiter() -> None:
    """Do what the product's waiter does, its events counted."""
    here = os.path.abspath(__file__)
    sys.path.insert(0, os.environ["CRASH_PACKAGES"])
    sys.path.insert(0, os.path.dirname(here))
    install(Injector(os.environ[TRIAL], WAITER))
    from qemu_netwrap.runtime import waiter

    waiter.main()


def serve() -> None:
    """Start commands as told, a JSON object a line; answer with how each began or ended."""
    import qemu_netwrap
    from qemu_netwrap.cli import main as cli
    from qemu_netwrap.runtime import provision

    assert cli
    assert provision
    os.environ["CRASH_PACKAGES"] = os.path.dirname(os.path.dirname(qemu_netwrap.__file__))
    for line in sys.stdin:
        told = json.loads(line)
        if "end" in told:
            os.kill(told["end"], told["signal"])
            answer = _ended(told["end"], os.waitpid(told["end"], 0)[1])
        else:
            answer = _start(told["folder"], told["argv"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(folder: str, argv: list[str]) -> dict[str, int | bool]:
    """Run the product's command until it has ended, or has become QEMU."""
    pid = os.fork()
    if pid == 0:
        _be_the_product(folder, argv)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return _ended(pid, status)
        if is_qemu(pid):
            return {"pid": pid, "lives": True, "status": 0}
        time.sleep(0.002)


def _ended(pid: int, status: int) -> dict[str, int | bool]:
    """Return the answer for a command that has ended."""
    return {"pid": pid, "lives": False, "status": os.waitstatus_to_exitcode(status)}


def _be_the_product(folder: str, argv: list[str]) -> None:
    """Run the product's main in this process. Does not return."""
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        said = os.open(f"{folder}/err", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for to, fd in ((0, null), (1, null), (2, said)):
            os.dup2(fd, to)
        os.environ[TRIAL] = folder
        sys.argv = ["qemu-netwrap", *argv]
        install(Injector(folder, LAUNCHER if "--" in argv else GC))
        from qemu_netwrap.__main__ import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a forked child must not return
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        wait_as_waiter()
