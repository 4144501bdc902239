"""What a terminal would act on does not reach it, wherever it comes from."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import TYPE_CHECKING, Final

import pytest

from lab.tool import IDLE, QEMU, netwrap
from qemu_netwrap import printable
from qemu_netwrap.errors import NetwrapError

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked

CONFIG: Final = "/etc/qemu-netwrap/config.toml"
ACTED_ON: Final = ("\x1b[2J", "\x9b2J", "\x07", "\r", "\x08", "\u202e", "\u2066", "\u200f", "\x7f")
NFT: Final = "#!/bin/sh\nprintf 'Error: \\033]0;owned\\007 \\302\\2332J\\n'; exit 1\n"


def is_safe(text: str) -> bool:
    """Whether a terminal only shows a text."""
    return not any(unicodedata.category(char) in ("Cc", "Cf") for char in text.replace("\n", ""))


@pytest.mark.parametrize("text", ACTED_ON, ids=ascii)
def test_every_way_out_spells_it(text: str) -> None:
    assert is_safe(printable.line(text))
    assert is_safe(NetwrapError(text, text).message + NetwrapError(text, text).hint)
    assert is_safe(str(NetwrapError(text)))
    assert json.loads(f'"{printable.line(text)}"') == text
    assert printable.lines(f"a\n{text}").count("\n") == 1
    assert printable.line("b\udcffä…") == "b\\xffä…"


def test_what_a_configuration_says(host: Host) -> None:
    quoted = json.dumps("".join(ACTED_ON))
    for typed in (
        f"default = {quoted}",
        f"[networks.a]\nmode = {quoted}",
        f"[networks.{quoted}]\nmode = 'nat'",
        f"[networks.a]\nmode = 'nat'\n{quoted} = 1",
    ):
        host.write(CONFIG, typed)
        done = netwrap(host, "config", "check")
        assert done.returncode == 125
        assert is_safe(done.stdout + done.stderr), typed


def test_what_is_typed(host: Host) -> None:
    text = "".join(ACTED_ON)
    words = ("plan", QEMU, "-name", f"a{text}", "-nic", "nat", f"/{text}.img")
    done = netwrap(host, *words, check=True)
    assert is_safe(done.stdout + done.stderr)
    for typed in (f"tap,network={text}", f"bridge,br={text}", f"nat,ifname={text}"):
        done = netwrap(host, "--", QEMU, *IDLE, "-nic", typed)
        assert done.returncode == 125
        assert is_safe(done.stdout + done.stderr)
    assert is_safe(netwrap(host, f"--{text}").stderr + netwrap(host, "stop", text).stderr)


def test_what_other_programs_say(uplinked: Uplinked) -> None:
    host = uplinked.host
    host.write("/etc/first/nft", NFT, mode=0o755)
    path = f"/etc/first:{os.environ['PATH']}"
    done = netwrap(host, "--", QEMU, *IDLE, "-nic", "nat", env={"PATH": path})
    assert done.returncode == 125
    assert "Error: " in done.stderr
    assert is_safe(done.stderr)
    netwrap(host, "gc", check=True)


def test_bytes_that_are_no_text_are_printed(host: Host) -> None:
    done = netwrap(host, "plan", QEMU, "-nic", "nat", "/\udcff.img", check=True)
    assert "\\xff.img" in done.stdout
