"""A configuration that somebody else could have written: root does not believe it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host
    from lab.user import User

TEXT = '[networks.evil]\nmode = "nat"\n'
USUAL = "/etc/qemu-netwrap/config.toml"
# What is at $1 is made by this, as root; 1000 is somebody else.
FOREIGN = {
    "the file is another user's": "chown 1000 $1",
    "the file is for everybody to write": "chmod 666 $1",
    "the file is for a group to write": "chgrp 1000 $1; chmod 664 $1",
    "the folder is another user's": "chown 1000 ${1%/*}",
    "the folder is for everybody to write": "chmod 777 ${1%/*}",
    "the folder is for a group to write": "chgrp 1000 ${1%/*}; chmod 775 ${1%/*}",
    "another user's link": (
        "mv $1 /etc/good.toml; mkdir -m 1777 /etc/t; chmod 1777 /etc/t;"
        " ln -s /etc/good.toml /etc/t/l; chown -h 1000 /etc/t/l; ln -s /etc/t/l $1"
    ),
    "a link by way of another user's folder": (
        "mv $1 /etc/good.toml; mkdir /etc/t; ln -s /etc/good.toml /etc/t/l; chown 1000 /etc/t;"
        " ln -s ../t/l $1"
    ),
}
OWN = {
    "root's": ":",
    "root's group's": "chgrp 0 $1; chmod 664 $1",
    "in a folder with the sticky bit": "chmod 1777 ${1%/*}",
    "root's link": "mv $1 /etc/good.toml; ln -s ../good.toml $1",
}
SUDO = {"SUDO_UID": "1000", "SUDO_GID": "1000", "SUDO_USER": "somebody"}
COMMANDS = (("network", "list"), ("config", "check"), ("plan", "qemu-system-x86_64", "-nic", "nat"))


def made(host: Host, script: str, path: str = USUAL) -> None:
    """Write a configuration, and make it what it is to be."""
    host.write(path, TEXT)
    host.run("sh", "-euc", script, "made", path)


@pytest.mark.parametrize("case", FOREIGN)
def test_root_does_not_believe_what_others_wrote(host: Host, watch: Watch, case: str) -> None:
    made(host, FOREIGN[case])
    watch.baseline(host)
    for words in (COMMANDS[len(case) % 3], ("--config", USUAL, *COMMANDS[0])):
        done = netwrap(host, *words)
        assert done.returncode == 125
        assert done.stderr.startswith(f"qemu-netwrap: {USUAL}: ")
        assert "hint: " in done.stderr
        assert "evil" not in done.stdout


@pytest.mark.parametrize("case", OWN)
def test_root_believes_its_own(host: Host, watch: Watch, case: str) -> None:
    made(host, OWN[case])
    watch.baseline(host)
    assert "evil" in netwrap(host, "network", "list", check=True).stdout


def test_the_user_behind_sudo_is_believed_by_name_alone(host: Host) -> None:
    path = "/etc/home/.config/qemu-netwrap/config.toml"
    made(host, "chown -R 1000:1000 /etc/home; chmod 664 $1", path)
    env = {**SUDO, "HOME": "/etc/home", "XDG_CONFIG_HOME": ""}
    done = netwrap(host, "network", "list", env=env)
    assert done.returncode == 125
    assert f"--config {path}" in done.stderr
    named = netwrap(host, "--config", path, "network", "list", env=env, check=True)
    assert "evil" in named.stdout
    assert netwrap(host, "config", "check", path, env=env).returncode == 0
    other = netwrap(host, "--config", path, "network", "list", env={**env, "SUDO_UID": "1001"})
    assert other.returncode == 125
    host.run("chown", "1001", path)
    assert netwrap(host, "--config", path, "network", "list", env=env).returncode == 125


def test_an_ordinary_user_reads_what_there_is(host: Host) -> None:
    made(host, "chmod 666 $1")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert "evil" in host.run(*user, COMMAND, "network", "list").stdout


def test_no_configuration_at_all_can_be_named(host: Host) -> None:
    made(host, ":")
    assert (
        "evil" not in netwrap(host, "--config", "/dev/null", "network", "list", check=True).stdout
    )


def test_a_descriptor_is_the_callers_own(host: Host) -> None:
    host.write(USUAL, "")
    words = f"echo '{TEXT}' | {COMMAND} --config /dev/stdin network list"
    assert "evil" in host.run("sh", "-c", words).stdout


@pytest.mark.parametrize("env", [{"XDG_CONFIG_HOME": "here"}, {"HOME": ""}, {"HOME": "here"}])
def test_the_current_folder_has_no_configuration(host: Host, env: dict[str, str]) -> None:
    for folder in ("here/qemu-netwrap", "here/.config/qemu-netwrap", ".config/qemu-netwrap"):
        host.write(f"/etc/cwd/{folder}/config.toml", TEXT)
    done = netwrap(host, "network", "list", cwd="/etc/cwd", env={"XDG_CONFIG_HOME": "", **env})
    assert done.returncode == 0
    assert "evil" not in done.stdout


@pytest.mark.parametrize("words", [*COMMANDS, ("--", "/bin/true", "-nic", "nat")], ids=" ".join)
def test_the_users_own_file_is_named(user: User, words: tuple[str, ...]) -> None:
    """It is in the home that the host's list of users has: sudo has made HOME root's."""
    path = "/home/alice/.config/qemu-netwrap/config.toml"
    user.write(path, TEXT)
    env = {"SUDO_UID": "1000", "SUDO_GID": "1000", "SUDO_USER": "alice", "HOME": "/root"}
    said = f"{path} is not read under sudo; --config {path} reads it\n"
    for options, is_said in (((), True), (("-q",), False), (("--config", "/dev/null"), False)):
        done = netwrap(user.host, *options, *words, env={**env, "XDG_CONFIG_HOME": ""})
        netwrap(user.host, "wait", check=True)
        assert (said in done.stderr) is is_said
