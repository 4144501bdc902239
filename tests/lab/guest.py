"""Real guests: a Debian kernel and a busybox initramfs under a real QEMU, booted in seconds.

The kernel is downloaded once and unpacked, never installed. A guest runs one shell script, the
job, tells its results on the console as `@@ KEY VALUE` lines, and powers itself off.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

QEMU: Final = "qemu-system-x86_64"

_META_PACKAGE: Final = "linux-image-cloud-amd64"
_BUSYBOX: Final = "busybox-static"
KERNEL_WORDS: Final = (
    "quiet console=ttyS0 panic=-1 no_timer_check tsc=reliable mitigations=off random.trust_cpu=on "
    "nokaslr audit=0 apparmor=0 init_on_alloc=0 cryptomgr.notests rcupdate.rcu_expedited=1 "
    # What a slow machine makes the kernel say, perhaps in the middle of a report.
    "nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
)
# What the guest can load, as far as the kernel has it: the cloud kernel is without e1000.
_MODULES: Final = (
    *("virtio_pci", "virtio_net", "failover", "net_failover", "e1000", "e1000e", "vmxnet3"),
    *("af_packet", "ipv6", "8021q"),
)

# Text modes matter: without -onlcr every line ends in two characters, and echo repeats `send`.
_INIT: Final = r"""#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -echo -onlcr
. /lib/job.sh
for each in af_packet ipv6 virtio_pci virtio_net; do load "$each"; done
case "$(cat /sys/bus/pci/devices/*/modalias)" in
    *v000015ADd000007B0*) load vmxnet3 ;;
esac
case "$(cat /sys/bus/pci/devices/*/modalias)" in
    *v00008086d0000100E*) load e1000 ;;
    *v00008086d000010D3*) load e1000e ;;
esac
ip link set lo up
read -r seconds _ </proc/uptime
report booted "$seconds"
sh /job.sh
report status "$?"
poweroff -f
"""

_JOB_LIBRARY: Final = r"""
# report KEY VALUE...: tell the test something
report() { echo "@@ $*"; }

# load MODULE: load a kernel module and what it needs; nothing if it is built in or unknown
load() {
    [ -f "/lib/modules/$1.order" ] || return 0
    while read -r module; do
        [ -d "/sys/module/$module" ] || insmod "/lib/modules/$module.ko"
    done <"/lib/modules/$1.order"
}

# dhcp IF: get a lease; reports `lease IF ADDRESS/PREFIX GATEWAY DNS DOMAIN`, - for what is missing
dhcp() {
    ip link set "$1" up
    udhcpc -i "$1" -f -n -q -t 30 -T 1 -s /lib/udhcpc.sh -O search -O mtu
}

# try N CMD...: run a command until it succeeds, N times at most, 0.2 s apart
try() {
    left=$1
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}

# await_go: stand still until the test sends a line, which is then in $go
await_go() { report waiting "${1:-go}"; read -r go; }
"""

_UDHCPC: Final = r"""#!/bin/sh
case $1 in bound | renew) ;; *) exit 0 ;; esac
. /lib/job.sh
ip -4 address flush dev "$interface"
ip address add "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
for each in $router; do
    ip route add default via "$each" dev "$interface"
    break
done
{
    [ -z "$search$domain" ] || echo "search ${search:-$domain}"
    for each in $dns; do echo "nameserver $each"; done
} >/etc/resolv.conf
report lease "$interface" "$ip/$mask" "${router:--}" "${dns:--}" "${domain:--}"
"""


class GuestError(AssertionError):
    """A guest did not do what the test waited for."""


@functools.cache
def kernel() -> Path:
    """Return the kernel of the guests; the first call ever downloads and unpacks it.

    A kernel that is in the cache is used for ever: remove the cache to get a newer one.
    """
    return _only(_kernel_tree(), "boot/vmlinuz-*")


def initramfs(job: str) -> Path:
    """Return a new temporary file: the initramfs of a guest that runs the shell script `job`.

    The caller removes it. The script finds the functions of the job library at hand.
    """
    script = f"set -u\n. /lib/job.sh\n{job}\n"
    segment = _archive([_member("job.sh", 0o100755, script.encode())])
    handle, name = tempfile.mkstemp(prefix="qemu-netwrap-job-", suffix=".cpio")
    with os.fdopen(handle, "wb") as target:
        target.write(_base_image().read_bytes() + segment)
    return Path(name)


class Machine(Protocol):
    """Where a guest is started: a simulated machine, for its root, or an ordinary user there."""

    def popen(self, *cmd: str, **kw: Any) -> subprocess.Popen[str]:
        """Start a command there."""

    def lend(self, path: Path) -> str:
        """Return the path by which commands there read a file of the tests."""

    def take_back(self, lent: str) -> None:
        """Remove what `lend` made."""


def qemu_args(kernel_image: str, job_image: str, memory: int = 128) -> list[str]:
    """Return QEMU's words for a guest without a network of its own choice, `memory` in MiB."""
    return [
        *("-accel", "tcg", "-m", str(memory), "-display", "none", "-serial", "stdio"),
        *("-monitor", "none", "-no-reboot", "-kernel", kernel_image),
        *("-initrd", job_image, "-append", KERNEL_WORDS),
    ]


class Guest:
    """One real QEMU with a guest that runs a job, inside a simulated machine."""

    def __init__(
        self,
        host: Machine,
        wrapper: Sequence[str],
        net: Sequence[str],
        job: str,
        *,
        name: str | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """Start `WRAPPER qemu-system-x86_64 ... EXTRA NET` inside `host`.

        `wrapper` is what stands before QEMU's name, nothing for a bare QEMU; `net` are the network
        words under test; `name` becomes QEMU's -name.
        """
        self.name = name or "guest"
        self._host = host
        self._image = initramfs(job)
        self._lent = host.lend(self._image)
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        named = ("-name", name) if name else ()
        words = qemu_args(host.lend(kernel()), self._lent)
        self.argv = [*wrapper, QEMU, *words, *named, *extra, *net]
        pipe = subprocess.PIPE
        self.process = host.popen(
            *self.argv,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._readers = [
            self._reader("stdout", self.process.stdout),
            self._reader("stderr", self.process.stderr),
        ]

    def __enter__(self) -> Self:
        """Return the guest itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Make sure that QEMU is dead."""
        self.kill()

    @property
    def console(self) -> str:
        """All that the guest wrote to its console so far."""
        return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> str:
        """All that the wrapper and QEMU wrote to stderr so far."""
        return "".join(self._lines["stderr"])

    @property
    def reports(self) -> dict[str, str]:
        """The last value of every key reported so far."""
        return dict(self._all_reports())

    def reported(self, key: str) -> list[str]:
        """Return all values that were reported under `key`, oldest first."""
        return [value for each, value in self._all_reports() if each == key]

    def wait_report(self, key: str, timeout: float = 300.0) -> str:
        """Return the value of `key` as soon as it is reported; GuestError if it never is."""
        self._wait(lambda: key in self.reports or self._is_silent(), timeout, f"report {key!r}")
        if key not in self.reports:
            self._fail(f"ended without the report {key!r}")
        return self.reports[key]

    def send(self, line: str = "go") -> None:
        """Send a line to the guest's console: a job that stands in `await_go` goes on."""
        if self.process.stdin is None:
            self._fail("has no console to send to")
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def wait(self, timeout: float = 300.0) -> int:
        """Return QEMU's exit status when it is gone, with all that it printed read."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail(f"did not end within {timeout} s")
        self._join()
        return status

    def kill(self) -> None:
        """Kill QEMU if it is there, and forget what the guest needed; may be called again."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._join()
        if self.process.stdin is not None:
            # A killed QEMU no longer reads what was still to be sent.
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self._image.unlink(missing_ok=True)
        self._host.take_back(self._lent)

    def _reader(self, name: str, stream: IO[str] | None) -> threading.Thread:
        """Start a thread that keeps the lines of one stream."""
        if stream is None:
            self._fail(f"has no {name}")
        reader = threading.Thread(target=self._read, args=(name, stream), daemon=True)
        reader.start()
        return reader

    def _read(self, name: str, stream: IO[str]) -> None:
        """Keep the lines of a stream until its end, and wake those who wait for one."""
        with stream:
            for line in stream:
                with self._changed:
                    self._lines[name].append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _join(self) -> None:
        """Let the readers come to the end; a daemon that holds our pipes is not waited for."""
        deadline = time.monotonic() + 20.0
        for reader in self._readers:
            reader.join(max(0.0, deadline - time.monotonic()))

    def _is_silent(self) -> bool:
        """Tell whether QEMU is gone and all of its console is read."""
        return self.process.poll() is not None and not self._readers[0].is_alive()

    def _all_reports(self) -> Iterator[tuple[str, str]]:
        """Yield keys and values in the order of the reports."""
        for line in tuple(self._lines["stdout"]):
            # A message of the kernel may stand before the mark on the same line.
            _, mark, rest = line.partition("@@ ")
            if mark and line.endswith("\n"):
                key, _, value = rest.strip().partition(" ")
                yield key, value

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait until a condition that new lines may change is true."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    self._fail(f"gave no {what} within {timeout} s")
                self._changed.wait(min(left, 0.2))

    def _fail(self, what: str) -> NoReturn:
        """Raise GuestError with all there is to know."""
        status = self.process.poll()
        state = "running" if status is None else f"ended with {status}"
        told = f"--- console\n{self.console}\n--- stderr\n{self.stderr}"
        message = f"{self.name} {what} ({state})\n{told}"
        raise GuestError(message)


def cache() -> Path:
    """Return the folder where kernels and images are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "qemu-netwrap"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _only(folder: Path, pattern: str) -> Path:
    """Return the one file that matches."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        message = f"one {pattern} was expected in {folder}, not {len(found)}"
        raise RuntimeError(message)
    return found[0]


@functools.cache
def _kernel_tree() -> Path:
    """Return the unpacked kernel package, from the cache if it is there."""
    cached = sorted(cache().glob("linux-image-*"), key=lambda tree: tree.stat().st_mtime)
    if cached:
        return cached[-1]
    package = _kernel_package()
    return _unpack(package, cache() / package)


def unpacked(package: str) -> Path:
    """Return a Debian package as a folder; the first call ever downloads and unpacks it."""
    tree = cache() / package
    return tree if tree.is_dir() else _unpack(package, tree)


def _kernel_package() -> str:
    """Return the name of the newest real kernel package."""
    depends = _apt_cache_depends()
    if not depends:
        tool("apt-get", "update")
        depends = _apt_cache_depends()
    if not depends:
        message = f"apt knows no package {_META_PACKAGE}"
        raise RuntimeError(message)
    return depends[0]


def _apt_cache_depends() -> list[str]:
    """Return the kernel packages that the meta package depends on; none if it is not known."""
    command = ("apt-cache", "depends", _META_PACKAGE)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return re.findall(r"Depends: (linux-image-\S+)", done.stdout)


def _unpack(package: str, target: Path) -> Path:
    """Download a Debian package and unpack it as the folder `target`, all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as folder:
        # As root, apt would hand the download to another user, who may not write here.
        tool("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=folder)
        tool("dpkg", "-x", str(_only(Path(folder), "*.deb")), f"{folder}/tree")
        try:
            Path(folder, "tree").rename(target)
        except OSError:
            # Another run of the tests was faster.
            if not target.is_dir():
                raise
    return target


def tool(*cmd: str, cwd: str | None = None) -> str:
    """Run a command of the real machine and return what it printed; RuntimeError if it fails."""
    done = subprocess.run(cmd, check=False, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        message = f"{' '.join(cmd)} ended with {done.returncode}: {done.stderr or done.stdout}"
        raise RuntimeError(message)
    return done.stdout


@functools.cache
def _base_image() -> Path:
    """Return the image that all guests share: busybox, modules, /init and the job library."""
    tree = _kernel_tree()
    busybox = _busybox()
    recipe = hashlib.sha256(Path(__file__).read_bytes() + busybox.read_bytes()).hexdigest()[:16]
    target = cache() / f"initramfs-{tree.name.removeprefix('linux-image-')}-{recipe}.cpio"
    if not target.exists():
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as image:
            image.write(_archive([*_base_members(busybox), *_module_members(tree)]))
        Path(image.name).rename(target)
    return target


def _busybox() -> Path:
    """Return a statically linked busybox: the installed one, or one that is downloaded."""
    found = shutil.which("busybox")
    if found and b"/ld-linux" not in Path(found).read_bytes():
        return Path(found)
    return _only(unpacked(_BUSYBOX), "**/bin/busybox")


def _base_members(busybox: Path) -> Iterator[bytes]:
    """Yield the members of the image, modules excepted."""
    for folder in ("bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp", "run"):
        yield _member(folder, 0o040755)
    yield _member("dev/console", 0o020600, device=(5, 1))
    yield _member("bin/busybox", 0o100755, busybox.read_bytes())
    for applet in set(tool(str(busybox), "--list").split()) - {"busybox"}:
        yield _member(f"bin/{applet}", 0o120777, b"busybox")
    yield _member("init", 0o100755, _INIT.encode())
    yield _member("lib/job.sh", 0o100644, _JOB_LIBRARY.encode())
    yield _member("lib/udhcpc.sh", 0o100755, _UDHCPC.encode())
    yield _member("etc/nsswitch.conf", 0o100644, b"hosts: files dns\n")
    yield _member("etc/hosts", 0o100644, b"127.0.0.1 localhost\n::1 localhost\n")


def _module_members(tree: Path, names: Sequence[str] = _MODULES) -> Iterator[bytes]:
    """Yield the modules that this kernel has, and for each the order in which to load them."""
    files = module_files(tree)
    orders = {name: _load_order(name, files) for name in names if name in files}
    for name, order in orders.items():
        lines = "".join(f"{each}\n" for each in order)
        yield _member(f"lib/modules/{name}.order", 0o100644, lines.encode())
    for each in sorted({each for order in orders.values() for each in order}):
        yield _member(f"lib/modules/{each}.ko", 0o100644, module(files[each]))


def module_files(tree: Path) -> dict[str, Path]:
    """Return the files of all modules below TREE by module name; Debian 13 packs them with xz."""
    files = (path for path in tree.glob("**/*.ko*") if path.name.endswith((".ko", ".ko.xz")))
    return {path.name.partition(".")[0].replace("-", "_"): path for path in files}


@functools.cache
def module(path: Path) -> bytes:
    """Return the unpacked content of a module's file, for a loader that knows no xz."""
    packed = path.read_bytes()
    return lzma.decompress(packed) if path.suffix == ".xz" else packed


def _load_order(name: str, files: dict[str, Path]) -> list[str]:
    """Return a module and all that it needs, the needed first.

    The package has no modules.dep, which depmod makes on installation; the modules say it too.
    """
    found = re.search(rb"\0depends=([^\0]*)\0", module(files[name]))
    needed = found[1].decode().replace("-", "_").split(",") if found else []
    order: list[str] = []
    for each in needed:
        order += _load_order(each, files) if each in files else []
    return list(dict.fromkeys((*order, name)))


def _member(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """Return one member of a cpio archive in the newc format."""
    raw = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + raw) + _padded(data)


def _padded(data: bytes) -> bytes:
    """Return data filled up to a multiple of four."""
    return data + b"\0" * (-len(data) % 4)


def _archive(members: Sequence[bytes]) -> bytes:
    """Return a whole cpio archive; the kernel takes several, one after the other."""
    return b"".join(members) + _member("TRAILER!!!", 0)
