"""What a newcomer types first: nothing, help, no QEMU, or a network type that does not exist."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from lab.hooked import has_state
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from pathlib import Path

    from lab.netns import Host, Uplinked


@pytest.mark.parametrize(
    ("typed", "status", "shown"),
    [
        ("", 125, "Running VMs:"),
        ("-h", 0, "Running VMs:"),
        ("--help", 0, "--bind-group"),
        ("help", 0, "--bind-group"),
        ("help network", 0, "keep them up"),
        ("help network up", 0, "Usage: qemu-netwrap network up"),
        ("network", 125, "  show  "),
        ("config", 125, "  check  "),
        ("vfio", 125, "  list  "),
        ("hooks", 125, "  status  "),
        ("shim", 125, "  install  "),
    ],
)
def test_help(host: Host, typed: str, status: int, shown: str) -> None:
    done = netwrap(host, *typed.split(), env={"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (status, "")
    assert shown.lower() in done.stdout.lower()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_for_what_is_no_command(host: Host) -> None:
    done = netwrap(host, "help", "netwrok")
    assert done.returncode == 125
    assert "Did you mean 'network'?" in done.stderr


@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_this_machines_qemu_is_run_where_none_is_named(
    uplinked: Uplinked, dashes: tuple[str, ...]
) -> None:
    host = uplinked.host
    qemu = host.popen(COMMAND, "-q", *dashes, *IDLE, "-nic", "nat", "-name", "web")
    try:
        wait_for(lambda: "web" in netwrap(host, "ps").stdout, "the run")
        exe = f"/proc/{qemu.pid}/exe"
        wait_for(lambda: os.path.basename(os.readlink(exe)) == QEMU, "QEMU in its place")
    finally:
        qemu.send_signal(signal.SIGTERM)
        qemu.wait()
        netwrap(host, "wait", check=True)


@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_plan_takes_the_same(uplinked: Uplinked, dashes: tuple[str, ...]) -> None:
    for words in (("-nic", "nat", "disk.img"), ("disk.qcow2", "-nic", "nat")):
        short = netwrap(uplinked.host, "plan", "--json", *dashes, *words, check=True)
        whole = netwrap(uplinked.host, "plan", "--json", "--", QEMU, *words, check=True)
        assert json.loads(short.stdout) == json.loads(whole.stdout)


def test_a_qemu_that_is_missing_is_named_with_its_package(host: Host, tmp_path: Path) -> None:
    alone = ("env", f"PATH={tmp_path}", COMMAND)
    done = host.run(*alone, "-nic", "nat", check=False)
    assert done.returncode == 127
    assert f"{QEMU}: there is no such program" in done.stderr
    assert "apt install qemu-system-x86\n" in done.stderr


@pytest.mark.parametrize(
    ("name", "package"),
    [("qemu-kvm", "x86"), ("qemu-system-arm", "arm"), ("qemu-system-riscv64", "misc")],
)
def test_a_named_qemu_that_is_missing(host: Host, tmp_path: Path, name: str, package: str) -> None:
    done = host.run("env", f"PATH={tmp_path}", COMMAND, "--", name, check=False)
    assert done.returncode == 127
    assert f"apt install qemu-system-{package}\n" in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-nic hostonly", "-nic host-only"),
        ("-nic NAT,model=virtio", "-nic nat"),
        ("-nic bridged,br=br0", "-nic bridge"),
        ("-netdev Host_Only,id=n", "-netdev host-only"),
        ("-net masquerade", "-net nat"),
        ("-nic usre", "-nic user"),
        ("-nic nat -nic hostonly", "-nic host-only"),
    ],
)
def test_a_network_type_that_was_meant(host: Host, typed: str, meant: str) -> None:
    for before in ((), ("plan",)):
        done = netwrap(host, *before, "--", QEMU, *typed.split())
        assert done.returncode == 125
        assert "there is no network type" in done.stderr
        assert f"did you mean {meant}?" in done.stderr
        assert not has_state(host)


@pytest.mark.parametrize("typed", ["-nic zyx", "-netdev vmnet-bridged,id=n", "-netdev -nic"])
def test_a_type_like_none_is_qemus_to_refuse(host: Host, typed: str) -> None:
    bare = host.run(QEMU, *typed.split(), check=False)
    done = netwrap(host, "--", QEMU, *typed.split())
    assert (done.returncode, done.stderr) == (bare.returncode, bare.stderr)


def test_a_shim_leaves_a_mistyped_type_to_qemu(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "shims"
    netwrap(host, "shim", "install", str(folder), check=True)
    bare = host.run(QEMU, "-nic", "hostonly", check=False)
    done = host.run(str(folder / QEMU), "-nic", "hostonly", check=False)
    assert done.returncode == bare.returncode
    assert "hostonly" in done.stderr
    assert "qemu-netwrap" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("hostfw=tcp::2222-:22", "hostfwd"),
        ("hostfwds=tcp::2222-:22", "hostfwd"),
        ("mdoel=x", "model"),
    ],
)
def test_a_mistyped_key_of_a_network(host: Host, typed: str, near: str) -> None:
    done = netwrap(host, "plan", "-nic", f"nat,{typed}")
    assert done.returncode == 125
    assert f"did you mean {near}?" in done.stderr
