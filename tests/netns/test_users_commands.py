"""Commands for users' runs: root's look at those of all, and what users do with their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.netns import Uplinked
    from lab.user import User


def runs_of(user: User) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(netwrap(user, "ps", "--json", check=True).stdout)[
        "runs"
    ]
    return found


def test_root_sees_the_runs_of_all_users(user: User, uplinked: Uplinked) -> None:
    refused = netwrap(user, "ps", "--all")
    assert refused.returncode
    assert "sudo qemu-netwrap ps --all" in refused.stderr
    words = ("-netdev", "nat,id=n0", "-name", "web")
    qemu = user.popen(COMMAND, "-q", "--", QEMU, *IDLE, *words)
    try:
        wait_for(lambda: [r["state"] for r in runs_of(user)] == ["running"], "the run")
        assert netwrap(user.host, "ps", check=True).stdout == "nothing runs\n"
        shown = netwrap(user.host, "ps", "--all", check=True).stdout
        assert shown.startswith("USER")
        assert "alice" in shown
        assert "web" in shown
        data = json.loads(netwrap(user.host, "ps", "--all", "--json", check=True).stdout)
        assert [(r["user"], r["name"], r["pid"]) for r in data["runs"]] == [
            ("alice", "web", runs_of(user)[0]["pid"])
        ]
        assert [(n["user"], n["name"]) for n in data["networks"]] == [("alice", "nat")]
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(user, "wait", check=True)
    assert netwrap(user.host, "ps", "--all", check=True).stdout == "nothing runs\n"


def test_a_users_files_do_not_hang_root(user: User, uplinked: Uplinked) -> None:
    qemu = user.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-netdev", "nat,id=n0")
    try:
        wait_for(lambda: [r["state"] for r in runs_of(user)] == ["running"], "the run")
        realm = user.sh(f"echo {user.runtime_folder}/qemu-netwrap/*.realm").strip()
        user.sh(f"mv {realm} {realm}.kept; mkfifo {realm}")
        shown = netwrap(user.host, "ps", "--all", check=True).stdout
        assert shown == "alice: that user's state gives no answer\n"
        user.sh(f"rm {realm}; ln -s /dev/zero {realm}")
        shown = netwrap(user.host, "ps", "--all", check=True).stdout
        assert shown == "alice: that user's state gives no answer\n"
        user.sh(f"rm {realm}; mv {realm}.kept {realm}")
        assert "running" in netwrap(user.host, "ps", "--all", check=True).stdout
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(user, "wait", check=True)


@pytest.mark.parametrize("then", ["; sleep 1000", "& exit 0", "-daemonize"])
def test_stop_finds_a_users_qemu_that_has_lost_its_parent(user: User, then: str) -> None:
    """Its user, by the number outside, is another one in the realm, where `stop` looks for it."""
    pid_file = f"{user.home}/pid"
    user.write("vm", f'#!/bin/sh\n{QEMU} "$@" -pidfile {pid_file} {then}\n')
    user.run("chmod", "+x", "vm")
    child = user.popen(COMMAND, "-q", "--", "./vm", *IDLE, "-name", "web", "-nic", "nat")
    wait_for(lambda: user.run("test", "-s", pid_file, check=False).returncode == 0, "QEMU")
    pid = int(user.read(pid_file))
    wait_for(lambda: "running" in netwrap(user, "ps", check=True).stdout, "the run")
    netwrap(user, "stop", "web", check=True)
    wait_for(lambda: pid not in user.processes(), "QEMU's end")
    child.wait(30)
    assert netwrap(user, "ps", check=True).stdout == "nothing runs\n"
