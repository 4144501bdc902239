"""An ordinary user's guests when the program that leads them out has died."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from guest.shell import Shell
from lab.netns import WEB_BODY, wait_for
from lab.tool import netwrap

if TYPE_CHECKING:
    from lab.user import User

NIC = "nat,model=virtio"
WEB = "http://www.example.test/"
PROGRAMS = ("slirp4netns ", "pasta ")


def test_who_joins_puts_the_way_out_back(user: User) -> None:
    with Shell(user, "-nic", NIC, name="one") as one:
        assert one.get(WEB) == WEB_BODY
        (pid,) = (pid for pid, cmd in user.processes().items() if cmd.startswith(PROGRAMS))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid not in user.processes(), "its end")
        told = netwrap(user, "ps", check=True).stdout
        assert "network nat: the program that led out has died: guests are cut off" in told
        with Shell(user, "-nic", NIC, name="two") as two:
            assert two.get(WEB) == WEB_BODY
            assert one.get(WEB) == WEB_BODY
            assert one.get("http://two/") == "two\n"
            (network,) = json.loads(netwrap(user, "ps", "--json", check=True).stdout)["networks"]
            assert network["way_out"]
    netwrap(user, "wait", check=True)
