"""A machine inside the machine, with an IOMMU and NICs that can be passed through: all emulated.

The machine is a QEMU (newer than the system's: it emulates `igb`, whose SR-IOV is real) with
Debian's full kernel. Its root is this machine's root over 9p, read-only, under an overlay: so the
same Python, the same wheel and the same QEMU are at hand there, and nothing done there is seen
here. An agent inside (lab/agent.py) does what tests tell it over a virtio port.
"""

from __future__ import annotations

import contextlib
import functools
import json
import lzma
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from lab import guest, packages, qemus

if TYPE_CHECKING:
    from collections.abc import Sequence

_KERNEL: Final = "linux-image-amd64"

_WORDS: Final = (
    "quiet console=ttyS0 panic=-1 no_timer_check tsc=reliable mitigations=off net.ifnames=0"
    " random.trust_cpu=on nokaslr audit=0 apparmor=0 init_on_alloc=0 cryptomgr.notests"
)
_MODULES: Final = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
_PORT: Final = "netwrap.agent"

_INIT: Final = r"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module.ko"; done </modules/order
mkdir -p /lower /rw /new
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /lower
mount -t tmpfs rw /rw
mkdir /rw/u /rw/w
mount -t overlay -o lowerdir=/lower,upperdir=/rw/u,workdir=/rw/w overlay /new
for each in proc sys dev; do mount --move "/$each" "/new/$each"; done
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t tmpfs run /new/run
mount -t tmpfs tmp /new/mnt
mkdir -m 1777 /new/mnt/job
cp /boot.sh /new/mnt/job/
exec switch_root /new /bin/bash /mnt/job/boot.sh
"""

# bash stays process 1 and reaps what is orphaned.
_BOOT: Final = r"""
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p "/lib/modules/$(uname -r)"
mount --bind '{modules}' "/lib/modules/$(uname -r)"
ip link set lo up
mkfifo /mnt/job/never  # nobody writes to it: what reads it sleeps
port=
until [ -n "$port" ]; do
    for each in /sys/class/virtio-ports/*; do
        [ "$(cat "$each/name")" != '{port}' ] || port=/dev/${{each##*/}}
    done
done
'{python}' '{agent}' "$port"
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class NestedError(AssertionError):
    """The machine inside did not do what the test waited for."""


class Done(NamedTuple):
    """How a command inside ended, and what it printed."""

    status: int
    stdout: str
    stderr: str


class Nested:
    """The machine inside. `run` and `sh` are for commands, `start` for what goes on meanwhile."""

    def __init__(self, devices: Sequence[str], *, words: str = "intel_iommu=on") -> None:
        """Boot it with QEMU's DEVICES and the kernel's WORDS."""
        self._folder = tempfile.TemporaryDirectory(prefix="qemu-netwrap-nested-")
        folder = Path(self._folder.name)
        self.console = folder / "console"
        image = folder / "initramfs"
        image.write_bytes(_image())
        ours, theirs = socket.socketpair()
        with theirs, (folder / "qemu").open("w") as said:
            self._process = subprocess.Popen(
                [*_qemu_words(image, self.console, theirs.fileno(), words), *devices],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "QEMU_MODULE_DIR": str(folder)},
            )
        self._said = folder / "qemu"
        self._socket = ours
        self._stream = ours.makefile("rwb")
        self._number = 0
        ours.settimeout(3000)
        try:
            self.run("true")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the machine itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Switch it off."""
        self.close()

    def close(self) -> None:
        """Switch the machine off at the wall; nothing of it is worth keeping."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()
        self._folder.cleanup()

    def run(self, *argv: str, check: bool = True, timeout: float = 900, text: str = "") -> Done:
        """Run a command to its end, with TEXT on its standard input."""
        told = self._ask(verb="run", argv=argv, timeout=timeout, text=text)
        done = Done(told["status"], told["stdout"], told["stderr"])
        if check and done.status:
            message = f"{' '.join(argv)} ended with {done.status}\n{done.stdout}{done.stderr}"
            raise NestedError(message)
        return done

    def sh(self, script: str, *, check: bool = True, timeout: float = 900) -> str:
        """Run a shell script; return what it printed, without the last newline."""
        return self.run("bash", "-c", script, check=check, timeout=timeout).stdout.rstrip("\n")

    def call(self, module: str, function: str, *args: str) -> Any:  # noqa: ANN401 - JSON
        """Call a function of a module below tests/ inside; return what it returns."""
        answer = self._ask(verb="call", module=module, function=function, args=args)
        if "error" in answer:
            message = f"{module}.{function}{args}: {answer['error']}"
            raise NestedError(message)
        return answer["value"]

    def start(self, *argv: str) -> Job:
        """Start a command that goes on."""
        return Job(self, self._ask(verb="start", argv=argv)["pid"])

    def poll(self, pid: int) -> dict[str, Any]:
        """Return the status of what was started, None while it runs, and all it printed."""
        return self._ask(verb="poll", pid=pid)

    def until(self, condition: str, timeout: float = 900) -> None:
        """Wait until a shell condition holds: one shell looks again and again."""
        pause = "read -rt 0.2 -u 9 || :"  # without a process
        script = f"exec 9<>/mnt/job/never; until {{ {condition}; }}; do {pause}; done"
        done = self.run("bash", "-c", script, check=False, timeout=timeout)
        if done.status:
            message = f"{condition}: not within {timeout} s\n{done.stdout}{done.stderr}"
            raise NestedError(message)

    def guest(self, name: str, job: str, *modules: str) -> list[str]:
        """Return QEMU's words for a guest inside that runs a job of `lab.guest`.

        It has Debian's full kernel with MODULES at hand; its console is `/mnt/job/NAME`.
        """
        image = Path(self._folder.name, f"{name}.cpio")
        script = f"set -u\n. /lib/job.sh\n{job}\n"
        image.write_bytes(
            guest._archive([
                *guest._base_members(guest._busybox()),
                *guest._module_members(_kernel_tree(), modules),
                guest._member("job.sh", 0o100755, script.encode()),
            ])
        )  # fmt: skip
        return [
            *("-kernel", str(_vmlinux()), "-initrd", str(image)),
            *("-append", guest.KERNEL_WORDS, "-serial", f"file:/mnt/job/{name}", "-no-reboot"),
        ]

    def _ask(self, **told: Any) -> dict[str, Any]:
        """Tell the agent something; return its answer."""
        try:
            self._stream.write(json.dumps(told).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError as error:
            line = str(error).encode()
        if not line.startswith(b"{"):
            console = self.console.read_text(errors="replace") if self.console.exists() else ""
            message = f"the machine is silent: {line!r}\n{self._said.read_text()}\n{console}"
            raise NestedError(message)
        answer: dict[str, Any] = json.loads(line)
        return answer


class Job:
    """Something that was started inside."""

    def __init__(self, machine: Nested, pid: int) -> None:
        """PID is the process's inside."""
        self.machine = machine
        self.pid = pid

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        status: int | None = self.machine.poll(self.pid)["status"]
        return status

    @property
    def printed(self) -> str:
        """What it has printed so far, on either stream."""
        return str(self.machine.poll(self.pid)["printed"])

    def wait(self, timeout: float = 900) -> int:
        """Wait for the end; return the exit status."""
        deadline = time.monotonic() + timeout
        while (status := self.status) is None:
            if time.monotonic() > deadline:
                message = f"process {self.pid} goes on\n{self.printed}"
                raise NestedError(message)
            time.sleep(0.2)
        return status


def fetch() -> None:
    """See that all a machine is made of is there. Once: threads would be in each other's way."""
    qemus.recent()
    _vmlinux()
    _image()


def _qemu_words(image: Path, console: Path, fd: int, words: str) -> list[str]:
    """Return the words of the machine's QEMU, its NICs excepted."""
    qemu = qemus.recent()  # `igb` came with QEMU 8.0
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),  # also if the tests are killed
        *(str(qemu), "-L", str(qemu.parents[1] / "share/qemu"), "-L", "/usr/share/seabios"),
        # One CPU: with several, one may go by a memory map that another has just had freed, until
        # QEMU 10.0.3 (its commit "system/physmem: fix use-after-free with dispatch").
        *("-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1536"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"),
        *("-kernel", str(_vmlinux()), "-initrd", str(image), "-append", f"{_WORDS} {words}"),
        *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={fd}"),
        *("-device", f"virtserialport,chardev=agent,name={_PORT}"),
    ]


def kernel() -> Path:
    """Return the bzImage of Debian's full kernel, for guests that need more than the usual one."""
    return guest._only(_kernel_tree(), "boot/vmlinuz-*")


def modules() -> Path:
    """Return the folder of that kernel's modules."""
    return modules_in(_kernel_tree())


def modules_in(tree: Path) -> Path:
    """Return the folder of a kernel's modules."""
    return guest._only(tree, "lib/modules/*")


@functools.cache
def _image() -> bytes:
    """Return the initramfs: busybox, the modules that mounting the root takes, and /init."""
    busybox = guest._busybox()
    files = guest.module_files(modules())
    order = list(
        dict.fromkeys(each for name in _MODULES for each in guest._load_order(name, files))
    )
    boot = _BOOT.format(
        modules=modules(),
        port=_PORT,
        python=sys.executable,
        agent=Path(__file__).with_name("agent.py"),
    )
    folders = ("bin", "dev", "proc", "sys", "modules")
    applets = "sh mount insmod mkdir cp switch_root".split()
    return guest._archive([
        *(guest._member(folder, 0o040755) for folder in folders),
        guest._member("dev/console", 0o020600, device=(5, 1)),
        guest._member("bin/busybox", 0o100755, busybox.read_bytes()),
        *(guest._member(f"bin/{applet}", 0o120777, b"busybox") for applet in applets),
        *(guest._member(f"modules/{n}.ko", 0o100644, guest.module(files[n])) for n in order),
        guest._member("modules/order", 0o100644, "".join(f"{n}\n" for n in order).encode()),
        guest._member("boot.sh", 0o100644, boot.encode()),
        guest._member("init", 0o100755, _INIT.encode()),
    ])  # fmt: skip


@functools.cache
def _vmlinux() -> Path:
    """Return the kernel unpacked: QEMU starts it by PVH, without the firmware's and its own loader.

    Where the compressed part lies is in the header (Documentation/arch/x86/boot.rst).
    """
    target = _kernel_tree() / "vmlinux"
    if not target.exists():
        raw = kernel().read_bytes()
        start = (raw[0x1F1] + 1) * 512 + int.from_bytes(raw[0x248:0x24C], "little")
        payload = raw[start : start + int.from_bytes(raw[0x24C:0x250], "little")]
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(lzma.LZMADecompressor().decompress(payload))
        Path(file.name).rename(target)
    return target


@functools.cache
def _kernel_tree() -> Path:
    """Return Debian's full kernel, unpacked; from the cache if one is there."""
    cached = sorted(_cache().glob("kernel-*"))
    target = cached[-1] if cached else _download_kernel()
    if not (modules_in(target) / "modules.dep").exists():
        # What modprobe goes by; the package leaves it to its installation.
        guest.tool("/sbin/depmod", "-b", str(target), modules_in(target).name)
    return target


def _download_kernel() -> Path:
    """Download and unpack the kernel that Debian's package of this name stands for now."""
    with packages.apt(packages.SUITE) as words:
        depends = guest.tool("apt-cache", *words, "depends", _KERNEL)
        package = re.findall(r"Depends: (linux-image-\S+)", depends)[0]
        target = _cache() / f"kernel-{package}"
        packages.unpack(words, target, package)
    return target


def _cache() -> Path:
    """Return the folder where the kernel is kept."""
    folder = guest.cache() / "nested"
    folder.mkdir(exist_ok=True)
    return folder
