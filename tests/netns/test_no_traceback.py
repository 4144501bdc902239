"""Odd input to the installed command: a message of its own, or QEMU's, and never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.tool import QEMU, netwrap

if TYPE_CHECKING:
    from lab.netns import Host

DIGITS = "9" * 5000
HELPER = str(Path(sys.executable).with_name("qemu-netwrap-bridge-helper"))
CONFIG = "/etc/qemu-netwrap/config.toml"
# What only we understand, in what we are to refuse.
REFUSED = (
    ("plan", "/bin/true", "-nic", "foo,network=nat"),
    ("plan", "/bin/true", "-netdev", "foo,id=a,uplink=eth0"),
    ("plan", QEMU, "-nic", f"nat,queues={DIGITS}"),
    ("plan", QEMU, "-nic", f"nat,sndbuf={DIGITS}"),
    ("plan", QEMU, "-nic", f"nat,hostfwd=tcp::{DIGITS}-:22"),
    ("plan", QEMU, "-nic", f"nat,hostfwd=tcp:{DIGITS}.0.0.1:1-:22"),
    ("plan", QEMU, "-nic", f"nat,mac={DIGITS}"),
    ("plan", QEMU, "-nic", f"sriov,pf=eth0,vf={DIGITS}"),
    ("plan", QEMU, "-netdev", r'{"type":"nat","id":"\ud800"}', "-nic", "nat"),
    ("plan", QEMU, "-netdev", r'{"type":"tap","id":"a","network":"\u0000"}', "-nic", "nat"),
    ("plan", QEMU, "-netdev", '{"type":"nat","id":"a","queues":NaN}', "-nic", "nat"),
    ("plan", QEMU, "-netdev", f'{{"type":"nat","id":"a","queues":{DIGITS}}}', "-nic", "nat"),
    ("stop", DIGITS),
    ("stop", "--", f"-{DIGITS}"),
    ("wait", f"{DIGITS}x"),
    ("ifup", DIGITS),
    ("vfio", "bind", f"{DIGITS}:0.{DIGITS}"),
)
VALUES = (
    *(DIGITS, f"0x{'f' * 5000}", f"[{DIGITS}]", f"'{DIGITS}'", f"'10.0.0.0/{DIGITS}'", "1e999"),
    f"{{ a = '{DIGITS}.0.0.1' }}",
)


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words)[:40])
def test_odd_words_are_refused(host: Host, words: tuple[str, ...]) -> None:
    done = netwrap(host, *words)
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("qemu-netwrap: ")
    assert "\n  hint: " in done.stderr


@pytest.mark.parametrize("key", ["forward_delay", "subnet", "dns", "addresses", "subnet6"])
def test_odd_values_are_refused_with_their_line(host: Host, key: str) -> None:
    for value in VALUES:
        host.write(CONFIG, f"[networks.a]\nmode = 'nat'\n{key} = {value}\n")
        done = netwrap(host, "config", "check")
        assert done.returncode == 125
        assert "Traceback" not in done.stderr
        assert f"{CONFIG}:3: " in done.stderr


def test_what_is_not_ours_is_passed_on(host: Host) -> None:
    done = netwrap(host, "plan", "/bin/true", "-nic", f"foo,x={DIGITS}", check=True)
    assert "nothing to set up" in done.stdout
    helper = host.run(HELPER, "--br=br0", f"--fd={DIGITS}", check=False)
    assert helper.returncode == 125
    assert "Traceback" not in helper.stderr
