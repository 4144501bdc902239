"""MACs are read as QEMU reads them: what QEMU takes is taken, as the same address."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import pytest

from lab.hooked import ps
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap
from qemu_netwrap.model import mac

if TYPE_CHECKING:
    from lab.netns import Host

TAKEN: Final = (
    *("0x52:54:0:12:34:56", " 52:54:00:12:34:57", "52-54-0-1-2-3", "+52:-2:0:1:2:3", "0100"),
    *("152:54:0x0:1:2: 4", "52:54:::1:", "0xabcdef"),
)
REFUSED: Final = (
    *("52:54:00:12:34", "52:54:00:12:34:5g", "0x:1:2:3:4:5", " ", "-1", "0x1000000"),
    *("52:54:0:1:2:3 ", "1:0:0:0:0:1", "52.54.0.1.2.3"),
)


def test_what_qemu_takes_is_the_same_address(host: Host) -> None:
    machine = ("-accel", "tcg", "-M", "pc", "-display", "none", "-S", "-monitor", "stdio")
    nics = [word for typed in TAKEN for word in ("-nic", f"user,model=e1000,mac={typed}")]
    asked = host.run(QEMU, *machine, *nics, input="info network\nquit\n").stdout
    found = re.findall(r"macaddr=([0-9a-f:]+)", asked)
    assert [mac.parse(typed) for typed in TAKEN] == found


@pytest.mark.parametrize("typed", REFUSED)
def test_what_qemu_refuses_is_refused(host: Host, typed: str) -> None:
    bare = host.run(QEMU, *IDLE, "-nic", f"user,mac={typed}", check=False)
    ours = netwrap(host, "plan", QEMU, "-nic", f"nat,mac={typed}")
    assert bare.returncode == 1
    assert ours.returncode == 125
    with pytest.raises(ValueError, match=r"MAC|ethernet") as error:
        mac.parse(typed)
    assert str(error.value) in bare.stderr
    assert str(error.value) in ours.stderr


@pytest.mark.parametrize("kind", ["host-only", "tap"])
def test_a_network_of_ours_has_it(host: Host, kind: str) -> None:
    """QEMU's own script for taps is not there: QEMU would fail with it."""
    host.write("/etc/qemu-netwrap/config.toml", 'default = "host-only"\n')
    typed = f"{kind},mac= 0x52:54:0:1:2:3"
    child = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-nic", typed)
    wait_for(lambda: any(run["nics"] for run in ps(host)["runs"]) or bool(child.poll()), "the run")
    assert [n["macs"] for r in ps(host)["runs"] for n in r["nics"]] == [["52:54:00:01:02:03"]]
    child.kill()
    child.wait()
    netwrap(host, "wait", check=True)
    assert json.loads(netwrap(host, "ps", "--json").stdout)["runs"] == []
