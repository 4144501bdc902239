"""Guests of a bare QEMU whose scripts are ours."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from guest.shell import Shell, page
from lab.hooked import SCRIPTS, wait_gone
from lab.netns import WEB_BODY, WEB_NAME

if TYPE_CHECKING:
    from lab.netns import Uplinked


class Bare(Shell):
    """A guest of a QEMU that nobody wraps."""

    wrapper = ()


def test_out_by_nat_and_among_guests(uplinked: Uplinked) -> None:
    """A guest of a bare QEMU and one of a launch are neighbours, and both reach the outside."""
    host = uplinked.host
    tap = ("-nic", f"tap,model=virtio,mac=52:54:00:00:00:11,ifname=tap0,{SCRIPTS}")
    with Bare(host, *tap, name="old") as old, Shell(host, "-nic", "nat,model=virtio") as new:
        assert old.get(f"http://{WEB_NAME}/") == WEB_BODY
        assert new.reached(old.lease.address) == {old.lease.address}
        assert page(host, old.lease.address) == "old\n"
        old.process.send_signal(signal.SIGKILL)
        old.wait()
        assert new.get(f"http://{WEB_NAME}/") == WEB_BODY
        new.power_off()
    wait_gone(host)
