"""dnsmasq: one process for each network, which daemonizes once it answers."""

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
_IDS = 65535  # uids of a whole system: 65534 is `nobody`
_LOOKS = 2
_DHCP_PORT = 67
_STARTS = 20
_ANOTHER_WENT = "failed to find list of interfaces"


def start(folder: str, config: str, duid: str) -> Child:
    """Start dnsmasq with its files in FOLDER. `await_answers` returns once it answers.

    CONFIG is the text of its configuration. DUID, unless empty, is written where dnsmasq keeps it
    (src/lease.c, `read_leases`): to create one, it would list every interface of the host, which
    takes 40 ms with 3,000 of them. Raises `HostError`.
    """
    files.make_folder(f"{folder}/hosts", 0o755)
    files.write(f"{folder}/dnsmasq.conf", plain_text.dnsmasq(config))
    if duid and not os.path.exists(f"{folder}/leases"):
        files.write(f"{folder}/leases", f"duid {plain_text.line(duid)}\n", 0o644)
    return _spawn(folder)


def await_answers(child: Child, folder: str) -> None:
    """Wait until a dnsmasq that was started for FOLDER answers. Raises `HostError` if it fails.

    When it starts it lists the host's interfaces, and fails if one disappears meanwhile, such as
    the tap of another VM (src/network.c, `iface_allowed`): then it is started again.
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

    It runs as the user in its configuration, if there is one, or as this process if that is not
    root's; else as the user of `accounts.account`.
    """
    before: tuple[str, ...] = ("dnsmasq",)
    pid_file = f"{folder}/dnsmasq.pid"
    is_alone = is_lone()
    if os.geteuid() == 0 and not is_alone and "\nuser=" not in files.read(f"{folder}/dnsmasq.conf"):
        user = linux.accounts.account()
        if user.setpriv:
            before = (*user.before, child.require("dnsmasq"))
            pid_file = ""  # dnsmasq cannot write into the folder: `_note` does
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
            # In a user namespace with one id dnsmasq cannot switch to another.
            *(("--user=root", "--group=") if is_alone else ()),
        ),
        lock=_lock(folder),
    )


def _give(folder: str, uid: int) -> None:
    """Let a dnsmasq that is started as UID read its configuration and write its leases."""
    config, leases = f"{folder}/dnsmasq.conf", f"{folder}/leases"
    os.chown(config, 0, uid, follow_symlinks=False)
    os.chmod(config, 0o640)
    if not os.path.exists(leases):
        files.write(leases, "", 0o644)
    os.chown(leases, uid, uid, follow_symlinks=False)


def _note(folder: str) -> None:
    """Write the pid file of a dnsmasq that could not write it itself."""
    if find(folder) is None:
        for process in _all(folder):
            files.write(f"{folder}/dnsmasq.pid", f"{process.pid}\n", 0o644)


def is_nobody(process: Process) -> bool:
    """Whether a dnsmasq runs as `nobody`, its default user."""
    uid = proc.owner(process.pid)
    return uid > 0 and uid == linux.accounts.nobody()


def is_lone() -> bool:
    """Whether this user namespace maps few ids (`unshare -Ur`), so that there is only root."""
    for kind in ("uid_map", "gid_map"):
        ids = sum(int(row[2]) for row in proc.mapped_ids(kind))
        if 0 < ids < _IDS:
            return True
    return False


def find(folder: str) -> Process | None:
    """Return the dnsmasq that serves FOLDER, None if it is not running.

    The pid is from its pid file; its command line proves that it is the right process.
    """
    pid = files.read(f"{folder}/dnsmasq.pid").strip()
    if not pid.isdigit() or f"--conf-file={folder}/dnsmasq.conf" not in proc.command(pid):
        return None
    process = proc.of(int(pid))
    return process if process.started else None


def set_apart(folder: str) -> None:
    """Move the dnsmasq of FOLDER out of this process's control group: it serves other runs too."""
    process = find(folder)
    if process is not None:
        cgroup.leave(process.pid)


def stop_anywhere(folder: str) -> None:
    """End any dnsmasq that serves FOLDER, looking at every process: only needed after a crash.

    It may be starting. Until it has its own command line it holds the lock. Since it daemonizes by
    forking, a single look can miss both the parent, which has ended, and the child.
    """
    unseen = 0
    while unseen < _LOOKS:
        found = _all(folder)
        for process in found:
            stop(process)
        unseen = 0 if found or files.is_locked(_lock(folder)) else unseen + 1


def _all(folder: str) -> list[Process]:
    """Return every process that is, or is about to be, the dnsmasq of FOLDER.

    Any user can start a process with such a command line: only users of dnsmasq's count.
    """
    word = f"--conf-file={folder}/dnsmasq.conf"
    users = {os.geteuid(), linux.accounts.account().uid, linux.accounts.nobody()}
    return [
        proc.of(pid) for pid in proc.pids() if word in proc.command(pid) and proc.user(pid) in users
    ]


def _lock(folder: str) -> str:
    """Return the path of the lock that dnsmasq inherits, and closes while it starts."""
    return f"{folder}/dnsmasq.lock"


def reload(folder: str) -> None:
    """Have the dnsmasq of FOLDER reread its hosts, and forget those whose files are gone."""
    process = find(folder)
    if process is not None:
        waits.process(process, 0.0, SIGHUP)


def end(folder: str) -> None:
    """End the dnsmasq of FOLDER, if it is running; it has written its leases then."""
    process = find(folder)
    if process is not None:
        stop(process)


def kill(process: Process) -> None:
    """Kill a dnsmasq and its children, which answer queries by TCP; `stop` waits for the end.

    The end takes the kernel some 20 ms, in which nothing more is sent. SIGTERM would not do: a
    dnsmasq that is about to send a router advertisement sends it by the host's default route if its
    interface is gone by then (src/radv.c, `send_ra_alias`; IPV6_MULTICAST_IF in ipv6(7)).
    """
    waits.kill_group(process)  # a daemon is the leader of its group (src/dnsmasq.c, `main`)


def stop(process: Process) -> None:
    """End a dnsmasq and wait for its end, at most twice `_END_TIMEOUT`."""
    for signal in (SIGTERM, SIGKILL):
        if waits.process(process, _END_TIMEOUT, signal):
            return


def without_folder(base: str) -> dict[str, Process]:
    """Return the servers of networks whose folders under BASE are gone, by bridge name.

    Any user can start a process with such a command line. So it must run dnsmasq's program, in this
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
    """Whether a process runs PROGRAM in this network namespace, with a socket on the DHCP port."""
    if not (proc.runs_program(pid, program) and proc.is_in_our_network(pid)):
        return False
    return not proc.sockets("udp", _DHCP_PORT, pid).isdisjoint(proc.fd_links(pid))
