"""dnsmasq: one process a network, which daemonizes once it answers."""

from __future__ import annotations

import os
from _signal import SIGHUP, SIGKILL, SIGTERM

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import cgroup, child, files, proc, waits
from qemu_netwrap.linux.child import Child
from qemu_netwrap.linux.programs import SBIN, find_trusted
from qemu_netwrap.model import plain_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.proc import Process

_END_TIMEOUT = 5.0  # seconds after SIGTERM, until SIGKILL
_IDS = 65535  # those that a whole system may use: 65534 is nobody's
_LOOKS = 2
_DHCP_PORT = 67
_STARTS = 20
_ANOTHER_WENT = "failed to find list of interfaces"


def start(folder: str, config: str, duid: str) -> Child:
    """Start dnsmasq with its files in FOLDER. `await_answers` returns once it answers.

    DUID, where it is not empty, goes where dnsmasq keeps it (src/lease.c, `read_leases`). To make
    one it would have the kernel tell of every interface: 40 ms where there are 3,000.
    """
    files.make_folder(f"{folder}/hosts", 0o755)
    files.write(f"{folder}/dnsmasq.conf", plain_text.dnsmasq(config))
    if duid and not os.path.exists(f"{folder}/leases"):
        files.write(f"{folder}/leases", f"duid {plain_text.line(duid)}\n", 0o644)
    return _spawn(folder)


def await_answers(child: Child, folder: str) -> None:
    """Wait until a dnsmasq that was started for FOLDER answers. Raises `HostError` if it fails.

    At its start it looks at every interface of the host, and gives up if one goes meanwhile, some
    other VM's tap say (src/network.c, `iface_allowed`): then it is started again.
    """
    for _ in range(_STARTS):
        try:
            child.wait()
        except HostError as error:
            if _ANOTHER_WENT not in error.message:
                raise
            child = _spawn(folder)
        else:
            break
    else:
        child.wait()
    _note(folder)


def _spawn(folder: str) -> Child:
    """Start dnsmasq with the files that are in FOLDER.

    Where its configuration names a user, or root is not at work, that is whom it runs as.
    """
    before: tuple[str, ...] = ("dnsmasq",)
    pid_file = f"{folder}/dnsmasq.pid"
    is_alone = is_lone()
    if os.geteuid() == 0 and not is_alone and "\nuser=" not in files.read(f"{folder}/dnsmasq.conf"):
        user = linux.accounts.account()
        if user.setpriv:
            before = (*user.before, child.require("dnsmasq"))
            pid_file = ""  # it could not write into the folder: `_note` does
            _give(folder, user.uid)
        elif user.uid:
            before = ("dnsmasq", f"--user={user.name}")
    return Child(
        (
            *before,
            f"--conf-file={folder}/dnsmasq.conf",
            f"--pid-file={pid_file}",
            f"--dhcp-leasefile={folder}/leases",
            f"--dhcp-hostsdir={folder}/hosts",
            # Without ids of others it would fail to leave root's.
            *(("--user=root", "--group=") if is_alone else ()),
        ),
        lock=_lock(folder),
    )


def _give(folder: str, uid: int) -> None:
    """Let a dnsmasq that is UID from its start read its configuration, and write its leases."""
    config, leases = f"{folder}/dnsmasq.conf", f"{folder}/leases"
    os.chown(config, 0, uid, follow_symlinks=False)
    os.chmod(config, 0o640)
    if not os.path.exists(leases):
        files.write(leases, "", 0o644)
    os.chown(leases, uid, uid, follow_symlinks=False)


def _note(folder: str) -> None:
    """Write down the number of a dnsmasq that has not done so itself."""
    if find(folder) is None:
        for process in _all(folder):
            files.write(f"{folder}/dnsmasq.pid", f"{process.pid}\n", 0o644)


def is_nobody(process: Process) -> bool:
    """Whether a dnsmasq runs as the user that it takes when it is told none."""
    uid = proc.owner(process.pid)
    return uid > 0 and uid == linux.accounts.nobody()


def is_lone() -> bool:
    """Whether this user namespace has few ids, as by `unshare -Ur`: nobody to become but root."""
    for kind in ("uid_map", "gid_map"):
        ids = sum(int(row[2]) for row in proc.mapped_ids(kind))
        if 0 < ids < _IDS:
            return True
    return False


def find(folder: str) -> Process | None:
    """Return the dnsmasq that serves FOLDER, None when it does not live.

    Its pid file says the number; its command line that it is the one.
    """
    pid = files.read(f"{folder}/dnsmasq.pid").strip()
    if not pid.isdigit() or f"--conf-file={folder}/dnsmasq.conf" not in proc.command(pid):
        return None
    process = proc.of(int(pid))
    return process if process.started else None


def set_apart(folder: str) -> None:
    """Take the dnsmasq of FOLDER out of this process's control group: it serves other runs too."""
    process = find(folder)
    if process is not None:
        cgroup.leave(process.pid)


def stop_anywhere(folder: str) -> None:
    """End any dnsmasq that serves FOLDER by looking at every process: after a crash only.

    It may just be starting. Before it has its own words it holds the lock. As a daemon it is its
    starter's grandchild: a look may miss one that has just left and the next, not there yet.
    """
    unseen = 0
    while unseen < _LOOKS:
        found = _all(folder)
        for process in found:
            stop(process)
        unseen = 0 if found or files.is_locked(_lock(folder)) else unseen + 1


def _all(folder: str) -> list[Process]:
    """Return every process that is, or is about to be, the dnsmasq of FOLDER.

    Anybody can give a process such words: only those count whose user dnsmasq may have.
    """
    word = f"--conf-file={folder}/dnsmasq.conf"
    users = {os.geteuid(), linux.accounts.account().uid, linux.accounts.nobody()}
    return [
        proc.of(pid) for pid in proc.pids() if word in proc.command(pid) and proc.user(pid) in users
    ]


def _lock(folder: str) -> str:
    """Return the lock that dnsmasq holds until, at its start, it closes what it has inherited."""
    return f"{folder}/dnsmasq.lock"


def reload(folder: str) -> None:
    """Have the dnsmasq of FOLDER read its hosts again, forgetting those whose file is gone."""
    process = find(folder)
    if process is not None:
        waits.process(process, 0.0, SIGHUP)


def end(folder: str) -> None:
    """End the dnsmasq of FOLDER, if it lives; what it knows of leases is written down then."""
    process = find(folder)
    if process is not None:
        stop(process)


def kill(process: Process) -> None:
    """Kill a dnsmasq, and what it has forked for questions by TCP; `stop` waits for its end.

    That takes the kernel some 20 ms, in which it says nothing more. Told to end (SIGTERM), it might
    be just about to send its first router advertisement, which goes by the host's default route
    if its interface has gone meanwhile: the kernel then has no other to send it by (src/radv.c,
    `send_ra_alias`; IPV6_MULTICAST_IF in ipv6(7)).
    """
    try:
        # A daemon's group is its own (src/dnsmasq.c, `main`).
        group = os.getpgid(process.pid)
        if proc.lives(process) and group != os.getpgrp():
            os.killpg(group, SIGKILL)
    except ProcessLookupError:
        pass


def stop(process: Process) -> None:
    """End a dnsmasq and wait until it is gone."""
    for signal in (SIGTERM, SIGKILL):
        if waits.process(process, _END_TIMEOUT, signal):
            return


def without_folder(base: str) -> dict[str, Process]:
    """Return the servers of networks whose folders under BASE have gone, by their bridges.

    Everybody chooses a process's words. So it must be dnsmasq's own program that runs, in this
    network namespace, with a socket on the DHCP port, which takes a privilege.
    """
    head, tail = f"--conf-file={base}/networks/", "/dnsmasq.conf"
    program = find_trusted("dnsmasq", SBIN)
    found = {}
    for pid in proc.pids():
        words = [w for w in proc.command(pid) if w.startswith(head) and w.endswith(tail)]
        if words and program and _is_server(pid, program):
            found[words[0][len(head) : -len(tail)]] = proc.of(pid)
    gone = [bridge for bridge in found if not os.path.exists(f"{base}/networks/{bridge}")]
    return {bridge: found[bridge] for bridge in gone}


def _is_server(pid: int, program: str) -> bool:
    """Whether a process runs PROGRAM here, with a socket on the DHCP port."""
    if not (proc.runs_program(pid, program) and proc.is_in_our_network(pid)):
        return False
    return not proc.sockets("udp", _DHCP_PORT, pid).isdisjoint(proc.fd_links(pid))
