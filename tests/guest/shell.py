"""A guest behind the tool that runs what the test asks, and says what came out of it."""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lab.guest import Guest, initramfs, kernel
from lab.netns import wait_for
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.netns import Host
    from lab.user import User

# Print the addresses that answer. All are asked at once: each that is silent takes its time. On a
# busy machine an answer takes long, and a bridge that has just come up loses the first packets.
_REACHED: Final = r"""
answers() {
    for patience in 1 3; do
        busybox ping -c1 -W$patience "$1" >/dev/null 2>&1 && return
        busybox sleep 0.2
    done
    return 1
}
reached() {
    for each; do
        { answers "$each" && echo "$each"; } &
    done
    wait
}
"""
# The answer is coded so that it is one word, whatever it holds.
_SHELL: Final = r"""
mkdir /www
echo "$name" >/www/index.html
httpd -h /www
report ready
number=0
while read -r command; do
    number=$((number + 1))
    (eval "$command") >/answer
    report "answer$number" "$? $(base64 -w0 /answer)"
done
"""


@dataclass(frozen=True)
class Lease:
    """What a guest got by DHCP, "-" for what it did not get."""

    interface: str
    address: str
    length: str
    gateway: str
    dns: str
    domain: str


class Shell(Guest):
    """A guest whose shell does what the test asks; it serves a page, its name, on port 80."""

    wrapper: tuple[str, ...] | None = None  # what stands before QEMU, if it is not the launcher

    def __init__(
        self,
        host: Host | User,
        *net: str,
        name: str | None = None,
        address: str = "",
        options: Sequence[str] = (),
        extra: Sequence[str] = (),
        before: Sequence[str] = (),
        for_all: bool = False,
    ) -> None:
        """Start `BEFORE qemu-netwrap OPTIONS -- qemu-system-x86_64 ... EXTRA NET` inside `host`.

        A user starts it as nothing but that user, without `for_all`.

        eth0 gets the static `address` with its prefix length, or none is given and it asks for a
        lease. `for_all` lets every user read the guest's kernel, as the QEMU of one has to.
        """
        self.host = host
        self._answers = 0
        up = f"ip address add {address} dev eth0; ip link set eth0 up" if address else "dhcp eth0"
        job = f"name={shlex.quote(name or '')}\n{up}\n{_REACHED}{_SHELL}"
        self._copies: tuple[str, ...] = ()
        if for_all:
            extra = (*extra, *self._copy(job))
        wrapper = (*before, COMMAND, *options, "--") if self.wrapper is None else self.wrapper
        super().__init__(host, wrapper, net, job, name=name, extra=extra)

    @property
    def typed(self) -> list[str]:
        """QEMU's words as they were typed, the program first."""
        return self.argv[self.argv.index("--") + 1 :]

    @property
    def lease(self) -> Lease:
        """What the guest got by DHCP; waits for it."""
        interface, address, *others = self.wait_report("lease").split()
        return Lease(interface, *address.split("/"), *others)

    @property
    def mac(self) -> str:
        """The MAC that the guest sees."""
        return self.ask("cat /sys/class/net/eth0/address").strip()

    def ask(self, command: str) -> str:
        """Return what a shell command prints inside the guest; it has to succeed."""
        self.wait_report("ready")  # what is sent before is lost
        self._answers += 1
        self.send(command)
        status, _, coded = self.wait_report(f"answer{self._answers}").partition(" ")
        output = base64.b64decode(coded).decode(errors="replace")
        assert status == "0", f"{command!r} ended with {status} in {self.name}: {self.console}"
        return output

    def get(self, url: str) -> str:
        """Return the page that the guest gets over HTTP, once it does."""
        return self.ask(f"try 150 wget -qO- {url}")

    def lookup(self, name: str) -> str:
        """Return what the guest's nslookup prints of a name's IPv4 address, once it has one."""
        return self.ask(f"try 150 nslookup -type=a {name}")

    def reached(self, *addresses: str) -> set[str]:
        """Return those of the addresses that answer the guest's ping."""
        return set(self.ask(f"reached {' '.join(addresses)}").split())

    def power_off(self) -> None:
        """Let the guest switch itself off: an orderly exit."""
        self.send("poweroff -f")
        assert self.wait() == 0

    def kill(self) -> None:
        """Kill QEMU if it is there, and remove what it was given to read."""
        super().kill()
        if self._copies:
            self.host.run("rm", "-f", *self._copies)

    def _copy(self, job: str) -> tuple[str, ...]:
        """Copy the guest's kernel and image to where all may read; return QEMU's words for it."""
        image = initramfs(job)
        try:
            self._copies = ("/run/guest-kernel", "/run/guest-image")
            for source, copy in zip((kernel(), image), self._copies, strict=True):
                self.host.run("install", "-m", "644", self.host.lend(source), copy)
        finally:
            image.unlink()
        return ("-kernel", self._copies[0], "-initrd", self._copies[1])


def page(host: Host, address: str) -> str:
    """Return the page that `host` gets from a guest, once it does.

    Who has asked for a neighbor in vain (dnsmasq does, to learn its IPv6 address) has the kernel
    say for a second that it cannot be reached, though it is up by then.
    """
    ask = ("timeout", "60", "busybox", "wget", "-qO-", f"http://{address}/")
    told: list[str] = []

    def comes() -> bool:
        done = host.run(*ask, check=False)
        told[:] = [done.stdout]
        return done.returncode == 0

    wait_for(comes, f"the page of {address}")
    return told[0]


def reached(host: Host, *addresses: str) -> set[str]:
    """Return those of the addresses that answer the ping of `host`."""
    return set(host.run("sh", "-c", f'{_REACHED}reached "$@"', "sh", *addresses).stdout.split())


def status(host: Host) -> dict[str, Any]:
    """Return what `qemu-netwrap ps --json` says."""
    found: dict[str, Any] = json.loads(netwrap(host, "ps", "--json", check=True).stdout)
    return found


def link(host: Host, name: str) -> dict[str, Any]:
    """Return all that `ip` knows of an interface."""
    found: list[dict[str, Any]] = json.loads(
        host.run("ip", "-j", "-d", "link", "show", name).stdout
    )
    return found[0]
