"""DHCP for those who are known, and names from -name alone: guests that ask in others' names."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import dhcp_guest
from lab.hooked import IFDOWN, IFUP
from lab.netns import wait_for
from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

OWN: Final = "52:54:00:00:00:77"
UNKNOWN: Final = "52:54:00:00:00:99"
GUEST: Final = str(Path(dhcp_guest.__file__))
UNGUARDED: Final = '[networks.host-only]\nmode = "host-only"\nip_filter = false\n'
UNFILTERED: Final = '[networks.lab]\nmode = "host-only"\nmac_filter = false\n'


class Asking:
    """A guest in QEMU's place that asks for leases."""

    def __init__(self, host: Host, *words: str, before: tuple[str, ...] = ()) -> None:
        pipe = subprocess.PIPE
        command = (*before, sys.executable, GUEST, *words)
        self.process = host.popen(*command, stdin=pipe, stdout=pipe)
        assert self._said() == "ready"

    def _said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, mac: str, name: str = "") -> str:
        """Return the address that MAC gets, which says that it is called NAME; else `-`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{mac} {name}\n")
        self.process.stdin.flush()
        return self._said()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def asking(
    host: Host, network: str = "host-only", name: str = "", mac: str = OWN
) -> Iterator[Asking]:
    """Yield a guest on NETWORK, whose MAC is known; afterwards all of it is gone."""
    named = ("-name", name) if name else ()
    nic = f"tap,network={network},vnet_hdr=off,mac={mac}"
    guest = Asking(host, *named, "-nic", nic, before=(COMMAND, "-q", "--"))
    try:
        yield guest
    finally:
        guest.end()
        netwrap(host, "wait", str(guest.process.pid), check=True)


def knows(host: Host, name: str, network: str = "host-only") -> str:
    """Return the address that NETWORK's name server has for NAME, empty for none."""
    networks = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    (gateway,) = (n["address"].partition("/")[0] for n in networks if n["name"] == network)
    done = host.run("busybox", "nslookup", "-type=a", name, gateway, check=False)
    found = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Address: ")]
    return found[-1] if found else ""


def test_who_is_not_known_gets_no_lease(host: Host) -> None:
    """A guest cannot take all of a network's addresses, also without a name of its own.

    That its tap does not let these questions pass is another matter.
    """
    host.write("/etc/qemu-netwrap/config.toml", UNGUARDED)
    with asking(host) as guest:
        for number in range(20):
            assert guest.ask(f"52:54:00:00:01:{number:02x}") == "-"
        assert guest.ask(OWN) != "-"


def test_clients_names_are_not_believed(host: Host) -> None:
    with asking(host) as guest, asking(host, name="db", mac="52:54:00:00:00:78") as db:
        for name in ("wpad", "localhost", "isatap", "db", "other"):
            assert guest.ask(OWN, name) != "-"
            assert knows(host, f"{name}.host-only.internal") == ""
            assert knows(host, name) in ("", "127.0.0.1")
        address = db.ask("52:54:00:00:00:78", "other")
        assert knows(host, "db.host-only.internal") == address


def test_names_that_mean_something_else(host: Host) -> None:
    for name in ("localhost", "wpad"):
        with asking(host, name=name) as guest:
            assert guest.ask(OWN) != "-"
            assert knows(host, f"{name}.host-only.internal") == ""
    said = netwrap(host, "--", "true", "-name", "localhost", "-nic", "host-only").stderr
    assert "-name localhost: the guest has no name in DNS" in said


def test_without_a_mac_filter_everybody_is_served(host: Host) -> None:
    """As guests of guests are; some names are not believed all the same."""
    host.write("/etc/qemu-netwrap/config.toml", UNFILTERED)
    with asking(host, "lab") as guest:
        address = guest.ask(UNKNOWN, "inner")
        assert knows(host, "inner.lab.internal", "lab") == address != "-"
        for name in ("wpad", "localhost", "isatap"):
            assert guest.ask(UNKNOWN, name) != "-"
            assert knows(host, f"{name}.lab.internal", "lab") == ""


def test_a_tap_whose_macs_are_not_known_is_served(host: Host) -> None:
    """As that of a QEMU that calls qemu-ifup. When it is gone, nobody else is served."""
    host.write("/etc/qemu-netwrap/config.toml", UNGUARDED)
    env = {"QEMU_NETWRAP_NETWORK": "host-only"}
    with asking(host) as guest:
        assert guest.ask(UNKNOWN) == "-"
        other = Asking(host, "vm~", UNKNOWN)
        host.run(IFUP, "vm~", env=env)
        try:
            assert other.ask("+52:54:00:00:00:9a") != "-"
            assert other.ask(f"+{UNKNOWN}") != "-"
        finally:
            host.run(IFDOWN, "vm~", env=env)
            other.end()
        wait_for(lambda: guest.ask("52:54:00:00:00:9b") == "-", "the name server to forget")
        assert guest.ask(OWN) != "-"


HUB: Final = "-net socket,listen=:9 -net tap,network=host-only,vnet_hdr=off -net nic,macaddr="


def test_what_shares_a_tap_is_served(host: Host) -> None:
    """Others' packets come by a hub too."""
    guest = Asking(host, *f"{HUB}{OWN}".split(), before=(COMMAND, "-q", "--"))
    assert guest.ask(f"+{UNKNOWN}") != "-"
    guest.end()
    netwrap(host, "wait", check=True)
