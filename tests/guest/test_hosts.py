"""hosts: names that a network's DNS knows beside its guests'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell

if TYPE_CHECKING:
    from lab.netns import Uplinked

CONFIG = """
[networks.{mode}]
mode = "{mode}"
hosts = {{ files = "192.0.2.9", "printer.example.test" = "192.0.2.10" }}
"""


@pytest.mark.parametrize("mode", ["nat", "host-only"])
def test_extra_hosts(uplinked: Uplinked, mode: str) -> None:
    uplinked.host.write("/etc/qemu-netwrap/config.toml", CONFIG.format(mode=mode))
    with Shell(uplinked.host, "-nic", f"{mode},model=virtio", name="one") as one:
        for name in ("files", f"files.{mode}.internal"):
            assert "192.0.2.9\n" in one.lookup(name)
        assert "192.0.2.10\n" in one.lookup("printer.example.test")
