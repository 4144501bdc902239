"""QEMU is the judge: what it makes of a command line is what the package has to read in it.

Every line of inputs/*.txt is given to the real QEMU, the installed one and one of version 10, and
to the package. All must accept or refuse it, with the same netdevs and NICs plugged into each
other in the same way; and what the package makes of it must come to the same in QEMU. No verdict
is written down.

Where words of ours are in the line, what stands behind `=>` says it in QEMU's own.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from judge import inputs, network
from lab.netns import Host
from lab.qemus import both
from qemu_netwrap.errors import UsageError
from qemu_netwrap.linux import qemu_files
from qemu_netwrap.model.network import Config
from qemu_netwrap.model.run import TapDescriptors
from qemu_netwrap.qemu import network_options
from qemu_netwrap.runtime import launcher, plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.run import TapRequest

INPUTS: Final = list(inputs.read())
COURT: Final = str(Path(__file__).with_name("court.py"))
# A machine that is quickly there and never runs; what an input says of them counts instead.
BASE: Final = ("-M", "pc", "-accel", "tcg", "-m", "16", "-display", "none", "-S", "-qmp", "stdio")
RUN: Final = "42"
HELPER_CONFIG: Final = "allow all\n"


@dataclass(frozen=True)
class Verdict:
    """What a QEMU made of its words; `text` is its `info network`, None if it did not start."""

    text: str | None
    stderr: str
    aborted: bool


@dataclass(frozen=True)
class Made:
    """What the package made of a command line: nothing for one it does not touch."""

    accepts: bool
    reading: network_options.NetworkOptions | None = None
    plan: plan.Plan | None = None
    why: str = ""
    is_error: bool = False


class Court:
    """A QEMU program, and who starts it in the simulated machine."""

    def __init__(self, host: Host, program: str) -> None:
        """Open the court."""
        self.program = program
        self._clerk = host.popen(
            sys.executable, COURT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def hear(
        self,
        words: tuple[str, ...],
        taps: dict[str, tuple[str, bool, bool]] | None = None,
        files: dict[str, str] | None = None,
    ) -> Verdict:
        """Start the QEMU with WORDS; placeholders in them become descriptors and paths."""
        texts = (*words, *(files or {}).values())
        used = {p: made for p, made in TAPS.items() if any(p in text for text in texts)}
        request = {"words": words, "taps": {**used, **(taps or {})}, "files": files or {}}
        into, out = self._clerk.stdin, self._clerk.stdout
        assert into is not None
        assert out is not None
        into.write(json.dumps(request) + "\n")
        into.flush()
        answer: dict[str, Any] = json.loads(out.readline())
        return Verdict(answer["network"], answer["stderr"], answer["status"] == -signal.SIGABRT)


# In the inputs, descriptors of taps that the user has made: numbers that stand for real ones.
STAND_INS: Final = {"{tap}": "90001", "{tap2}": "90002", "{queue0}": "90003", "{queue1}": "90004"}
TAPS: Final = {
    "90001": ("mine0", False, True),
    "90002": ("mine1", False, True),
    "90003": ("many0", True, True),
    "90004": ("many0", True, True),
}


@pytest.fixture(scope="module")
def courts(lab: None) -> Iterator[list[Court]]:
    """The QEMUs, in one machine each: a tap's name may be in use only once."""
    programs = both()
    with Host("one") as one, Host("two") as two:
        for host in (one, two):
            host.write("/etc/qemu-ifup", "#!/bin/sh\n", mode=0o755)
            host.write("/etc/qemu-ifdown", "#!/bin/sh\n", mode=0o755)
            host.write("/etc/qemu/bridge.conf", HELPER_CONFIG)
            for bridge in ("br0", "lan0"):
                host.run("ip", "link", "add", bridge, "up", "type", "bridge")
        yield [Court(host, p) for host, p in zip((one, two), programs, strict=False)]


def test_there_are_enough_inputs_of_every_kind() -> None:
    kinds = {each.place.partition(":")[0] for each in INPUTS}
    assert len(kinds) == 6
    assert len(INPUTS) >= 400
    assert len({each.words for each in INPUTS}) == len(INPUTS)


@pytest.mark.parametrize("each", INPUTS, ids=str)
def test_qemu_agrees(each: inputs.Input, courts: list[Court], tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(courts)) as pool:
        objections = list(pool.map(lambda court: objection(court, each, tmp_path), courts))
    assert objections == [""] * len(courts)


def objection(court: Court, each: inputs.Input, folder: Path) -> str:
    """Return what a QEMU has against the package's reading of an input; nothing, hopefully."""
    folder /= str(Path(court.program).stat().st_ino)
    folder.mkdir()
    typed = (court.program, *BASE, *inputs.with_files(each.words, folder, "typed", STAND_INS))
    plain = (court.program, *BASE, *inputs.with_files(each.plain or (), folder, "plain", STAND_INS))
    verdict = court.hear(plain if each.plain is not None else typed)
    made = package(typed, court.program)
    if made.is_error and each.plain is None and not verdict.aborted:
        return f"QEMU's own message is not seen, but {made.why}"
    if made.accepts != (verdict.text is not None):
        return f"QEMU: {verdict.text or verdict.stderr!r}; the package: {made.why or 'accepts'}"
    if verdict.text is None or made.reading is None:
        return ""
    told, read = network.told(verdict.text), network.understood(made.reading)
    if not network.same(told, read):
        return f"QEMU has {told}, the package reads {read}"
    if made.plan is None:
        return ""
    return rewriting_objection(court, made.plan, verdict.text)


def package(typed: tuple[str, ...], program: str) -> Made:
    """Return what the package makes of a command line, by the way of a launch."""
    try:
        line, wanted = launcher.read_line(typed, program, None)
        made = plan.make(wanted, Config(), plan.Facts(RUN, "machine")) if wanted else None
    except UsageError as error:
        # QEMU must refuse such a type too, but its message may go unseen.
        is_typo = "there is no network type" in error.message
        return Made(accepts=False, why=error.message, is_error=not is_typo)
    if line.refused or line.prints_and_exits:
        return Made(accepts=False, why="refused by its words, or only prints")
    seen = wanted or network_options.read(line, qemu_files.load(line, program, launcher.OWN_CONFIG))
    faults = list(
        network_options.faults(seen, lambda strange: launcher.known(program, strange, None))
    )
    if faults:
        assert made is None
        return Made(accepts=False, why=str(faults))
    assert (made is not None) == seen.needs_provisioning
    return Made(True, seen, made)


def rewriting_objection(court: Court, made: plan.Plan, before: str) -> str:
    """Return what is different in QEMU when it gets the package's words; nothing, hopefully."""
    taps: dict[str, tuple[str, bool, bool]] = {}
    grants = {p.nic.tap: grant(p.nic, taps) for p in made.nics}
    ours = [
        mac
        for planned in made.nics
        for mac, given in zip(grants[planned.nic.tap].macs, planned.nic.macs, strict=True)
        if not given
    ]
    rewritten = made.rewritten(grants)
    paths = {at: f"<file {at}>" for at in rewritten.files}
    files = {paths[at]: text for at, text in rewritten.files.items()}
    words = rewritten.words(paths)
    after = court.hear(words, taps, files)
    if after.text is None:
        return f"QEMU refuses {shlex.join(words)}: {after.stderr}"
    one, other = outline(before, []), outline(after.text, ours)
    return "" if one == other else f"QEMU has {one}, and with the package's words {other}"


def grant(nic: TapRequest, taps: dict[str, tuple[str, bool, bool]]) -> TapDescriptors:
    """Return what a NIC gets, with placeholders as descriptors, and add these to TAPS."""
    placeholders = tuple(f"<{len(taps)}.{queue}>" for queue in range(nic.queues))
    taps.update((p, (nic.tap, nic.queues > 1, nic.vnet_hdr)) for p in placeholders)
    return TapDescriptors(
        placeholders, (), tuple(m or nic.own_mac(n) for n, m in enumerate(nic.macs))
    )


def outline(text: str, ours: list[str]) -> str:
    """Return `info network` without what may differ: taps' names, default MACs, #net's numbers."""
    text = re.sub(r"#net\d+", "#net", text.replace("\r", ""))
    text = re.sub(r"(type=tap),.*", r"\1", text)
    for mac in ours:
        text = text.replace(mac, network.DEFAULT)
    return network.DEFAULT_MAC.sub(network.DEFAULT, text)
