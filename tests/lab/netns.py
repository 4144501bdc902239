"""Simulated machines: each a network, mount and UTS namespace of its own.

A `Host` is held by one tiny shell that waits on a pipe. When the pipe closes, because the test is
done or because the test run was killed, the shell kills whatever still lives inside and goes away,
and the kernel takes the rest. Nothing on the machine that runs the tests is changed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WEB_ADDRESS: Final = "198.51.100.80"
WEB_NAME: Final = "www.example.test"
WEB_BODY: Final = "hello from the internet\n"
UPLINK_ADDRESS: Final = "203.0.113.2"
GATEWAY: Final = "203.0.113.1"

# The working directory of the holder stays in the first tmpfs on /run, which the second one hides:
# there the private upper layers live, reachable as /proc/PID/cwd and seen by no test.
# The closing loop asks for namespaces rather than for parents: daemons have left their parents.
# If the pipe closes without a word, the test run was killed: perhaps in the very moment when it
# started a command, which has not entered yet.
_HOLDER: Final = r"""
set -eu
echo "$1" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 lab /run
mkdir -p /run/etc/upper /run/etc/work
cd /run
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work lab /etc
mount -t tmpfs -o mode=755 run /run
mkdir -m 1777 /run/lock
mount -t sysfs sysfs /sys
ip link set lo up
echo ready
read -r _ || sleep 0.3
self=/proc/$$
while
    found=
    for each in /proc/[0-9]*; do
        [ "$each" != "$self" ] || continue
        for ns in net mnt uts; do
            [ "$each/ns/$ns" -ef "$self/ns/$ns" ] || continue
            kill -9 "${each#/proc/}" 2>/dev/null || :
            found=1
        done
    done
    [ -n "$found" ]
do
    sleep 0.005
done
"""

_WRITE: Final = r"""
set -eu
mkdir -p "${1%/*}"
[ ! -L "$1" ] || rm "$1"
cat >"$1"
[ -z "$2" ] || chmod "$2" "$1"
"""

_PRIVATISE: Final = r"""
set -eu
there=$1
while [ ! -d "$there" ]; do there=${there%/*}; there=${there:-/}; done
case $there in
    / | /dev | /dev/* | /proc | /proc/* | /sys | /sys/* | /tmp | /tmp/*)
        echo "cannot make $there private" >&2
        exit 1
        ;;
esac
mkdir -p "$2/upper" "$2/work"
mount -t overlay -o "lowerdir=$there,upperdir=$2/upper,workdir=$2/work" lab "$there"
echo "$there"
"""


# Where machines with ordinary users have copies of what the tests lend.
_LENT: Final = "/home/.lent/"

# The processes that hold the machines that there are.
_HOLDERS: Final[set[int]] = set()


class CommandFailedError(Exception):
    """A command in a simulated machine ended with a status other than 0."""

    def __init__(self, host: str, done: subprocess.CompletedProcess[str]) -> None:
        """Say which command failed on which machine, and all that it printed."""
        command = " ".join(done.args)
        super().__init__(
            f"on {host}: {command!r} ended with {done.returncode}\n"
            f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}",
        )
        self.done = done


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
    """Return as soon as `condition()` is true; AssertionError naming `what` after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            message = f"waited {timeout} s in vain for {what}"
            raise AssertionError(message)
        time.sleep(0.002)


class Host:
    """One simulated machine: its own network, host name, /run, /etc and /sys.

    Processes, /tmp, /dev and the rest of the file system are those of the real machine.
    """

    def __init__(self, name: str) -> None:
        """Make the machine and give it the host name `name`; it is ready on return."""
        self.name = name
        self.written: dict[str, str] = {}
        self.private: dict[str, str] = {"/etc": "etc"}
        self.own = ["/run"]  # folders of which all that is in them is this machine's
        self.uids: list[range] = []  # the ordinary users'
        self._children: list[subprocess.Popen[str]] = []
        namespaces = ("--net", "--mount", "--uts", "--propagation", "private")
        self._holder = subprocess.Popen(
            ("unshare", *namespaces, "--", "sh", "-c", _HOLDER, "host", name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pid = self._holder.pid
        _HOLDERS.add(self.pid)
        if _stream(self._holder.stdout).readline() != "ready\n":
            output, _ = self._holder.communicate(timeout=60)
            message = f"cannot make the simulated machine {name}: {output}"
            raise RuntimeError(message)
        # Bound namespaces of the machine below: its users remove them as they like. By number and
        # place, as the kernel gives a number that is free again to the next mount.
        self.foreign_mounts = frozenset((row[0], row[4]) for row in self.mounts() if "nsfs" in row)

    def __enter__(self) -> Self:
        """Return the machine itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the machine."""
        self.close()

    def __repr__(self) -> str:
        """Return the name and the holder's process id."""
        return f"Host({self.name!r}, pid={self.pid})"

    def argv(self, *cmd: str, cwd: str | Path | None = None) -> list[str]:
        """Return the command line that runs `cmd` in this machine, in `cwd` or the current folder.

        The process that this starts becomes `cmd`: the process id is that of the command.
        """
        enter = ("nsenter", "-t", str(self.pid), "-n", "-m", "-u", f"--wdns={cwd or Path.cwd()}")
        return [*enter, "--", *cmd]

    def run(
        self,
        *cmd: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002  the name that subprocess.run gives it
        timeout: float = 180.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `cmd` in this machine to its end and return its status, stdout and stderr.

        `env` is added to the environment of the tests. With `check`, a status other than 0 raises
        CommandFailedError. The call ends when nobody holds the command's stdout and stderr any
        more, so a daemon that keeps them open runs into `timeout`.
        """
        done = subprocess.run(
            self.argv(*cmd, cwd=cwd),
            check=False,
            input="" if input is None else input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=None if env is None else {**os.environ, **env},
        )
        if check and done.returncode:
            done.args = cmd
            raise CommandFailedError(self.name, done)
        return done

    def popen(
        self,
        *cmd: str,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        **kw: Any,
    ) -> subprocess.Popen[str]:
        """Start `cmd` in this machine; `env` is added to the environment, the rest is Popen's.

        What is still running when the machine is closed is killed and reaped then.
        """
        if env is not None:
            kw["env"] = {**os.environ, **env}
        return self.adopt(self.argv(*cmd, cwd=cwd), **kw)

    def adopt(self, argv: Sequence[str], **kw: Any) -> subprocess.Popen[str]:
        """Start what enters this machine by itself, as `argv` does; keywords are Popen's."""
        options: dict[str, Any] = {"text": True, "stdin": subprocess.DEVNULL, **kw}
        child: subprocess.Popen[str] = subprocess.Popen(argv, **options)
        self._children.append(child)
        return child

    def sh(self, script: str) -> str:
        """Run a shell script that ends at the first failure; return what it prints."""
        return self.run("sh", "-euc", script).stdout

    def write(self, path: str, text: str, *, mode: int | None = None) -> None:
        """Put `text` in the file `path`, an absolute path, so that only this machine sees it.

        Missing folders are made. The leak detector knows files written in this way as the test's
        own, and reports only what others make of them.
        """
        if not self._is_private(path):
            folder = self.run("realpath", "-m", "--", str(PurePosixPath(path).parent)).stdout
            path = str(PurePosixPath(folder.rstrip("\n"), PurePosixPath(path).name))
        if not self._is_private(path):
            self._privatise(PurePosixPath(path).parent)
        permissions = "" if mode is None else f"{mode:o}"
        self.run("sh", "-c", _WRITE, "write", path, permissions, input=text)
        self.written[path] = text

    def read(self, path: str) -> str:
        """Return the text of the file `path` as this machine sees it."""
        return self.run("cat", "--", path).stdout

    def sysctl(self, name: str) -> str:
        """Return a sysctl's value; `name` has dots or, for odd interface names, slashes."""
        return self.read(_sysctl_path(name)).rstrip("\n")

    def set_sysctl(self, name: str, value: str | int) -> None:
        """Set the sysctl `name` in this machine alone; only those of the network are its own."""
        if not _sysctl_path(name).startswith("/proc/sys/net/"):
            message = f"{name} belongs to the whole machine, not to a namespace"
            raise ValueError(message)
        script = 'printf "%s\\n" "$1" >"$2"'
        self.run("sh", "-c", script, "sysctl", str(value), _sysctl_path(name))

    def proc_net(self, name: str) -> str:
        """Return this machine's /proc/net/NAME: cheap, no process is started."""
        return Path(f"/proc/{self.pid}/net/{name}").read_text(encoding="ascii")

    def listening(self, protocol: str, port: int) -> bool:
        """Tell whether something answers on `port`; `protocol` is tcp, udp, tcp6 or udp6."""
        state = "0A" if protocol.startswith("tcp") else "07"
        rows = (line.split() for line in self.proc_net(protocol).splitlines()[1:])
        return any(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)

    def wait_listening(self, protocol: str, port: int, timeout: float = 60.0) -> None:
        """Wait until something answers on `port`."""
        what = f"{protocol} port {port} on {self.name}"
        wait_for(lambda: self.listening(protocol, port), what, timeout)

    def mounts(self) -> list[list[str]]:
        """Return the mounts as rows of words, as proc(5) explains /proc/PID/mountinfo."""
        text = Path(f"/proc/{self.pid}/mountinfo").read_text(encoding="utf-8")
        return [line.split() for line in text.splitlines()]

    def processes(self) -> dict[int, str]:
        """Return process id and command line of all that lives in this machine, holder excepted.

        A process counts if its network, mount or UTS namespace is this machine's, or if it is one
        of an ordinary user's that left all three; zombies do not.
        """
        mine = _namespaces(self.pid)
        pids = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
        others = [pid for pid in pids if pid != self.pid]
        inside = [pid for pid in others if _namespaces(pid) & mine]
        if self.uids:
            known = mine.union(*map(_namespaces, (os.getpid(), *_HOLDERS)))
            inside += [pid for pid in others if self._is_lost(pid, known)]
        return {pid: _command_line(pid) for pid in inside}

    def lend(self, path: Path) -> str:
        """Return the path by which this machine's root reads a file of the tests."""
        is_hidden = any(path.is_relative_to(folder) for folder in self.own)
        return self.copy(path) if is_hidden else str(path)

    def take_back(self, lent: str) -> None:
        """Remove what `lend` copied, if it did."""
        if lent.startswith(_LENT):
            self._real(lent).unlink(missing_ok=True)

    def copy(self, path: Path) -> str:
        """Copy a file of the tests to where all on a machine with users may read it; say where."""
        copy = f"{_LENT}{path.name}"
        real = self._real(copy)
        if not real.exists():
            real.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, real)
            real.chmod(0o644)
        return copy

    def close(self) -> None:
        """Kill all that lives in this machine, and end it; may be called again."""
        for child in self._children:
            _end(child)
        self._children.clear()
        if self._holder.poll() is None:
            for pid in self.processes() if self.uids else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._holder.communicate("close\n", timeout=120)
        _HOLDERS.discard(self.pid)

    def _real(self, path: str) -> Path:
        """Return the path by which the tests see a file of this machine."""
        return Path(f"/proc/{self.pid}/root{path}")

    def _is_lost(self, pid: int, known: frozenset[tuple[str, int]]) -> bool:
        """Tell whether a process is an ordinary user's of ours, and in no `known` namespace."""
        its = _namespaces(pid)
        return bool(its) and not its & known and is_of(pid, self.uids)

    def _is_private(self, path: str) -> bool:
        """Tell whether what is written at `path` stays inside this machine."""
        if ".." in PurePosixPath(path).parts or not path.startswith("/"):
            message = f"an absolute path without .. is needed, not {path}"
            raise ValueError(message)
        return any(path.startswith(f"{folder}/") for folder in (*self.own, *self.private))

    def _privatise(self, folder: PurePosixPath) -> None:
        """Lay an overlay of this machine's own over `folder`, or the nearest one that exists."""
        slot = f"overlay{len(self.private)}"
        upper = f"/proc/{self.pid}/cwd/{slot}"
        done = self.run("sh", "-c", _PRIVATISE, "privatise", str(folder), upper, check=False)
        if done.returncode:
            message = f"{folder} is the whole machine's: {done.stderr.rstrip()}"
            raise ValueError(message)
        self.private[done.stdout.rstrip("\n")] = slot


# Where both ends of a cable have the same index, each in its own namespace, the kernel takes them
# for one interface and lets a whole second pass before it looks at the carrier.
_INDEX: Final = itertools.count(100)
_RTF_LOCAL: Final = 0x80000000  # linux/ipv6_route.h


@dataclass(frozen=True)
class Uplinked:
    """A machine with an uplink (`host`), and the small internet behind it (`net`)."""

    host: Host
    net: Host


def link(a: Host, a_if: str, b: Host, b_if: str) -> None:
    """Lay a cable: a veth pair with the end `a_if` in `a` and `b_if` in `b`, both up and settled.

    IPv6 addresses on these ends are usable at once, without duplicate address detection.
    """
    one, other = next(_INDEX), next(_INDEX)
    ends = f"name {a_if} index {one} type veth peer name {b_if} index {other} netns {b.pid}"
    a.run("ip", "link", "add", *ends.split())
    for host, name in ((a, a_if), (b, b_if)):
        script = 'echo 0 >"/proc/sys/net/ipv6/conf/$1/accept_dad"; ip link set "$1" up'
        host.run("sh", "-c", script, "up", name)
    for host, name in ((a, a_if), (b, b_if)):
        wait_settled(host, name)


def wait_settled(host: Host, name: str) -> None:
    """Wait until the kernel has finished with an interface that was set up, and has IPv6."""
    wait_for(lambda: _is_settled(host, name), f"{name} on {host.name}")


@contextlib.contextmanager
def internet(*, ipv6: bool = False) -> Iterator[Uplinked]:
    """Yield a machine with an uplink and the small internet behind it.

    The machine has eth0 with 203.0.113.2/24 and its default route by 203.0.113.1, which is also its
    name server and knows www.example.test: 198.51.100.80, a web server with one page. With `ipv6`
    the same holds for 2001:db8:113::2, 2001:db8:113::1 and www6.example.test: 2001:db8:80::80.
    The internet knows no way back to any other address: only masqueraded traffic gets answers.
    """
    with Host("uplinked") as host, Host("internet") as net:
        link(host, "eth0", net, "peer0")
        host.write("/etc/resolv.conf", f"nameserver {GATEWAY}\n")
        _ip_batch(net, *_NET_SETUP, *(_NET_SETUP_6 if ipv6 else ()))
        _ip_batch(host, *_HOST_SETUP, *(_HOST_SETUP_6 if ipv6 else ()))
        wait_settled(host, "eth0")
        wait_settled(net, "peer0")
        _serve(net)
        yield Uplinked(host, net)


_NET_SETUP: Final = (
    f"address add {GATEWAY}/24 dev peer0",
    f"address add {WEB_ADDRESS}/32 dev lo",
)
_NET_SETUP_6: Final = (
    "address add 2001:db8:113::1/64 dev peer0",
    "address add 2001:db8:80::80/128 dev lo",
)
_HOST_SETUP: Final = (
    f"address add {UPLINK_ADDRESS}/24 dev eth0",
    f"route add default via {GATEWAY} dev eth0",
)
_HOST_SETUP_6: Final = (
    "address add 2001:db8:113::2/64 dev eth0",
    "route add default via 2001:db8:113::1 dev eth0",
)
_HTTPD: Final = ("busybox", "httpd", "-f", "-p", "80", "-h", "/run/www")
_DNSMASQ: Final = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
    *("--no-resolv", "--no-hosts", "--bind-interfaces", "--interface=peer0"),
    f"--host-record={WEB_NAME},{WEB_ADDRESS}",
    "--host-record=www6.example.test,2001:db8:80::80",
)


def _serve(net: Host) -> None:
    """Start the internet's web server and name server and wait until they answer."""
    net.write("/run/www/index.html", WEB_BODY)
    null = subprocess.DEVNULL
    for service in (_HTTPD, _DNSMASQ):
        net.popen(*service, stdout=null, stderr=null)
    # busybox binds an IPv6 socket that takes IPv4 too, where there is IPv6.
    wait_for(
        lambda: any(net.listening(protocol, 80) for protocol in ("tcp", "tcp6")),
        "the web server",
    )
    net.wait_listening("udp", 53)


def _ip_batch(host: Host, *commands: str) -> None:
    """Run several `ip` commands, written without the leading `ip`, in one process."""
    host.run("ip", "-batch", "-", input="".join(f"{command}\n" for command in commands))


def _is_settled(host: Host, name: str) -> bool:
    """Tell whether the kernel has finished with an interface that was set up."""
    rows = (line.split() for line in host.proc_net("if_inet6").splitlines())
    scopes = {row[0]: row[3] for row in rows if row[5] == name}
    # An address's local route comes last.
    routes = (line.split() for line in host.proc_net("ipv6_route").splitlines())
    usable = {row[0] for row in routes if row[1] == "80" and int(row[8], 16) & _RTF_LOCAL}
    state = Path(f"/proc/{host.pid}/root/sys/class/net/{name}/operstate")
    is_up = state.read_text(encoding="ascii") == "up\n"
    return "20" in scopes.values() and scopes.keys() <= usable and is_up


def _end(child: subprocess.Popen[str]) -> None:
    """Kill a child if it still runs, reap it and close its pipes."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            # What was still to be flushed to a dead child is of no interest.
            with contextlib.suppress(OSError, ValueError):
                stream.close()


def _sysctl_path(name: str) -> str:
    """Return the file of a sysctl."""
    return "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))


def _namespaces(pid: int) -> frozenset[tuple[str, int]]:
    """Return the network, mount and UTS namespace of a process, none if it is gone."""
    kinds = ("net", "mnt", "uts")
    try:
        return frozenset((ns, Path(f"/proc/{pid}/ns/{ns}").stat().st_ino) for ns in kinds)
    except OSError:
        return frozenset()


def is_of(pid: int, uids: Sequence[range]) -> bool:
    """Tell whether a process runs as one of these users; not, if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    uid = int(status.partition("\nUid:\t")[2].split()[0])
    return any(uid in each for each in uids)


def _command_line(pid: int) -> str:
    """Return the command line of a process, as words with blanks between; empty if it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace")


def _stream(stream: IO[str] | None) -> IO[str]:
    """Return a stream that is known to be there."""
    if stream is None:
        message = "the process was started without this pipe"
        raise RuntimeError(message)
    return stream
