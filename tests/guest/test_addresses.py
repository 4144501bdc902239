"""addresses: guests that always get the same one, by MAC or by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell, status
from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host

MAC = "52:54:00:00:00:0b"
CONFIG = f"""
[networks.{{mode}}]
mode = "{{mode}}"
subnet = "10.50.0.0/29"
addresses = {{{{ web = "10.50.0.3", "{MAC.upper()}" = "10.50.0.5", absent = "10.50.0.6" }}}}
"""


@pytest.mark.parametrize("mode", ["nat", "host-only"])
def test_by_name_and_by_mac(host: Host, mode: str) -> None:
    host.write("/etc/qemu-netwrap/config.toml", CONFIG.format(mode=mode))
    nic = f"{mode},model=virtio"
    with (
        Shell(host, "-nic", f"{nic},mac={MAC}", name="other") as other,
        Shell(host, "-nic", nic, name="one") as one,
        Shell(host, "-nic", nic, name="two") as two,
    ):
        assert other.lease.address == "10.50.0.5"
        # What is somebody's alone is not for them.
        assert {one.lease.address, two.lease.address} == {"10.50.0.2", "10.50.0.4"}
        with Shell(host, "-nic", nic, name="web") as web:
            assert web.lease.address == "10.50.0.3"
            assert "10.50.0.3\n" in one.lookup("web")
            with Shell(host, "-nic", nic, name="web") as twin:
                twin.wait_report("booted")
                told = "10.50.0.3 is in use by"
                wait_for(lambda: told in twin.stderr, "the twin's notice")
        wait_for(lambda: len(status(host)["runs"]) == 3, "the teardown")
        with Shell(host, "-nic", nic, name="web") as again:
            assert again.lease.address == "10.50.0.3"
