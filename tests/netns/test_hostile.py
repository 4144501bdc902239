"""Words and folders of somebody who means harm: nothing of them is believed or run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked

STATE = "/run/qemu-netwrap"


@pytest.mark.parametrize(
    "planted",
    [
        f"mkdir {STATE}; chown 65534 {STATE}",
        f"mkdir -m 777 {STATE}; chmod 777 {STATE}",
        f"mkdir /run/elsewhere; ln -s elsewhere {STATE}; chown -h 65534 {STATE}",
        f"echo >{STATE}; chown 65534 {STATE}",
    ],
    ids=["a folder of another user's", "writable for all", "a link", "a file"],
)
def test_a_state_folder_that_is_not_safe_is_refused(host: Host, planted: str) -> None:
    host.run("sh", "-c", planted)
    before = host.run("find", "/run").stdout
    done = netwrap(host, "--", QEMU, *IDLE, "-nic", "nat")
    assert done.returncode == 125
    assert STATE in done.stderr
    assert "hint: " in done.stderr
    assert host.run("find", "/run").stdout == before
    host.run("rm", "-rf", STATE, "/run/elsewhere")


@pytest.mark.parametrize(
    "name",
    [
        "$(touch /run/harm)",
        "a\ndhcp-script=/bin/harm",
        "a,,b\tc=d",
        "../../../run/harm",
        "-rf",
        "\x7f\x01",
    ],
)
def test_a_guests_name_is_a_label_or_nothing(uplinked: Uplinked, name: str) -> None:
    host = uplinked.host
    child = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-name", f"guest={name}", "-nic", "nat")
    while (
        not (runs := json.loads(netwrap(host, "ps", "--json").stdout)["runs"])
        or not runs[0]["nics"]
    ):
        assert child.poll() is None
    (hosts,) = (host.run("sh", "-c", f"cat {STATE}/*/networks/qn-nat/hosts/*", check=False).stdout,)
    mac = runs[0]["nics"][0]["macs"][0]
    assert hosts == "" or (hosts.startswith(f"{mac},") and hosts.count("\n") == 1)
    *addresses, label = hosts.strip().removeprefix(f"{mac},").split(",")
    assert len(addresses) <= 2
    assert not set("".join(addresses)) - set("0123456789abcdef.:[]")
    assert not set(label) - set("abcdefghijklmnopqrstuvwxyz0123456789-.:[]")
    child.terminate()
    child.wait(60)
    netwrap(host, "wait", check=True)
    assert host.run("find", "/run", "-name", "harm").stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        "nat,ifname=a b",
        "nat,mac=../../../harm",
        "bridge,br=../x",
        "bridge,br=a/b",
        'bridge,br=x" accept;',
        "tap,network=../x",
    ],
)
def test_names_that_would_be_more_than_names_are_refused(host: Host, words: str) -> None:
    done = netwrap(host, "--", QEMU, *IDLE, "-nic", words)
    assert done.returncode == 125
    assert "hint: " in done.stderr
