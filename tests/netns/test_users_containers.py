"""Networks without CAP_NET_ADMIN over the host, for root and users, in containers and the like."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import Shell
from lab.confined import contained, filtered, masked, read_only, setting, without_mounts
from lab.netns import WEB_ADDRESS, WEB_BODY
from lab.tool import COMMAND, QEMU, netwrap
from lab.user import User

if TYPE_CHECKING:
    import subprocess

    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

NAT: Final = ("--", "true", "-nic", "nat")
WEB: Final = f"http://{WEB_ADDRESS}/"
# Who has root's id, and a network namespace of their own.
OWN: Final = ("unshare", "--user", "--map-root-user", "--net", "sh", "-euc")
APPARMOR: Final = "apparmor_restrict_unprivileged_userns"


class Root(User):
    """root of a machine that is a container: `before` takes what root does not have there."""

    def argv(self, *cmd: str, **kw: object) -> list[str]:
        """Return the command line that runs `cmd` as root of the container."""
        del kw
        words = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
        return self.host.argv(*self.before, *words, *cmd)


@pytest.fixture
def root(uplinked: Uplinked, watch: Watch) -> Root:
    """Return root of a container of docker's with nothing but /dev/net/tun and user namespaces."""
    found = Root(uplinked.host, runtime=False, before=contained())
    masked(found.host)
    found.host.write("/run/systemd/container", "docker\n")
    watch.baseline(found.host)
    return found


def line(user: User, what: str) -> dict[str, str]:
    """Return what doctor says of something."""
    told = json.loads(netwrap(user, "doctor", "--json").stdout)
    return next(each for each in told["lines"] if each["what"] == what)


def refused(user: User, *words: str) -> str:
    """Return what the command says that fails."""
    done = netwrap(user, *words)
    assert done.returncode == 125
    return done.stderr


def leads_out(user: User, helper: str = "slirp4netns") -> str:
    """See that the user's nat leads out, and nothing is left of it; return its way out's command.

    A command in there stands for a guest: both are sent out by the realm's routes and rules.
    """
    netwrap(user, "network", "up", "nat", check=True)
    try:
        assert netwrap(user, "-q", "exec", "nat", "--", "curl", "-sS", WEB).stdout == WEB_BODY
        running = user.host.processes().values()
        (found,) = (words for words in running if words.startswith(f"{helper} "))
    finally:
        netwrap(user, "network", "down", "nat", check=True)
    return found


class TestRoot:
    """root without CAP_NET_ADMIN is a user like any other."""

    def test_has_networks_of_its_own(self, root: Root) -> None:
        root.host.write("/run/vm", "#!/bin/sh\nls /tmp /run\n", mode=0o755)
        shown = netwrap(root, "-q", "--", "/run/vm", "-nic", "nat", check=True).stdout
        assert "qemu-netwrap-0\n" in shown
        assert "qemu-netwrap\n" not in shown
        netwrap(root, "wait", check=True)
        assert root.host.run("nft", "list", "ruleset").stdout == ""
        planned = netwrap(root, "plan", *NAT, check=True).stdout
        assert "in a network namespace of this user's own" in planned
        told = line(root, "privilege")
        assert told["state"] == "ok"
        assert told["found"].startswith("root without CAP_NET_ADMIN: nat and host-only are in a")

    def test_its_nat_leads_out(self, root: Root) -> None:
        assert "--enable-sandbox" in leads_out(root)

    def test_pasta_leads_out_too(self, root: Root) -> None:
        config = "/etc/qemu-netwrap/config.toml"
        root.host.write(config, 'uplink_helper = "pasta"\n')
        assert leads_out(root, "pasta")

    def test_a_guest_of_its(self, root: Root) -> None:
        with Shell(root, "-nic", "nat,model=virtio", name="one") as one:
            assert one.lease.domain == "nat.internal"
            assert one.get(WEB) == WEB_BODY
            assert "one" in netwrap(root, "ps", check=True).stdout
        netwrap(root, "wait", check=True)

    def test_parts_of_the_host_are_not_its(self, root: Root) -> None:
        told = refused(root, "--", QEMU, "-nic", "tap,br=br8,uplink=eth0")
        assert "uplink eth0 is the host's" in told
        assert "root without CAP_NET_ADMIN, in docker: start the container with" in told
        assert "sudo" not in told
        assert "sudo" not in refused(root, "vfio", "bind", "0000:ff:1f.7")

    def test_the_hosts_networks_are_seen_where_it_has_none(self, root: Root) -> None:
        netwrap(root.host, "network", "up", "nat", check=True)
        address = netwrap(root.host, "ps", "--json", check=True).stdout
        assert netwrap(root, "ps", "--json", check=True).stdout == address
        netwrap(root, "network", "up", "host-only", check=True)
        assert "qn-nat" not in netwrap(root, "ps", check=True).stdout
        netwrap(root, "network", "down", "host-only", check=True)
        assert "qn-nat" in netwrap(root, "ps", check=True).stdout
        netwrap(root.host, "network", "down", "nat", check=True)

    def test_both_remedies_are_told(self, host: Host, watch: Watch) -> None:
        root = Root(host, runtime=False, before=(*filtered(), *contained()))
        host.write("/run/systemd/container", "docker\n")
        watch.baseline(host)
        privilege = line(root, "privilege")
        assert privilege["state"] == "broken"
        assert privilege["remedy"] == (
            "start the container with --cap-add NET_ADMIN,"
            " or with --security-opt seccomp=unconfined  # docker, podman"
        )
        for text in (refused(root, *NAT), refused(root, "plan", *NAT)):
            assert "Operation not permitted" in text
            assert "root without CAP_NET_ADMIN" in text
            assert privilege["remedy"] in text

    def test_without_any_capability(self, host: Host, watch: Watch) -> None:
        root = Root(host, runtime=False, before=contained(drop_all=True))
        host.write("/run/systemd/container", "docker\n")
        watch.baseline(host)
        told = refused(root, *NAT)
        assert "--cap-add NET_ADMIN " in told
        assert ", or with --cap-add SETFCAP  # docker, podman" in told


class TestOwnNamespaces:
    """`unshare -Urn`: networks are made as root makes them, and the state is the user's."""

    @pytest.mark.parametrize("runtime", [True, False])
    def test_networks_start(self, host: Host, watch: Watch, *, runtime: bool) -> None:
        user = User(host, runtime=runtime)
        place = f"{user.runtime_folder}/qemu-netwrap" if runtime else "/tmp/qemu-netwrap-1000"  # noqa: S108
        host.write("/run/vm", f"#!/bin/sh\nstat -c '%a %u' {place}\n", mode=0o755)
        watch.baseline(host)
        script = (
            "ip link set lo up;"
            f" {COMMAND} -q -- /run/vm -nic nat,hostfwd=tcp::2222-:22;"
            f" {COMMAND} wait; ! ip link show qn-nat 2>/dev/null;"
            f" {COMMAND} -q network up nat; {COMMAND} ps --json; ip link show qn-nat >/dev/null;"
            f" {COMMAND} -q exec nat -- true; {COMMAND} gc;"
            f" {COMMAND} network down nat; ! ip link show qn-nat 2>/dev/null; ! ls {place} 2>&-"
        )
        first, *others = user.run(*OWN, script).stdout.splitlines()
        assert first == "700 0"
        assert "nothing was left" in others
        (network,) = json.loads("\n".join(others[: others.index("nothing was left")]))["networks"]
        assert (network["name"], network["faults"]) == ("nat", [])

    def test_they_do_not_meet_the_users_others(self, user: User) -> None:
        netwrap(user, "network", "up", "nat", check=True)
        script = f"{COMMAND} ps --json; {COMMAND} {shlex.join(NAT)}; {COMMAND} wait; {COMMAND} gc"
        shown, _, gone = user.run(*OWN, script).stdout.rstrip("\n").rpartition("\n")
        assert json.loads(shown)["networks"] == []
        assert gone == "nothing was left"
        assert "qn-nat" in netwrap(user, "ps", check=True).stdout
        netwrap(user, "network", "down", "nat", check=True)

    def test_inside_of_a_realm_its_state_is_found(self, user: User) -> None:
        netwrap(user, "network", "up", "nat", check=True)
        shown = netwrap(user, "exec", "nat", "--", COMMAND, "ps", check=True).stdout
        assert "qn-nat" in shown
        netwrap(user, "network", "down", "nat", check=True)


class TestSandbox:
    """slirp4netns has its sandbox where mounts can be made, and starts without where not."""

    def test_proc_is_masked(self, uplinked: Uplinked, watch: Watch) -> None:
        user = User(uplinked.host)
        masked(user.host)
        watch.baseline(user.host)
        assert "--enable-sandbox" in leads_out(user)

    def test_nothing_can_be_mounted(self, uplinked: Uplinked, watch: Watch) -> None:
        user = User(uplinked.host, before=without_mounts())
        watch.baseline(uplinked.host)
        helper = leads_out(user)
        assert "--enable-sandbox" not in helper
        assert "--enable-seccomp" in helper

    def test_pasta_does_not_do_without(self, uplinked: Uplinked, watch: Watch) -> None:
        user = User(uplinked.host, before=without_mounts())
        watch.baseline(uplinked.host)
        user.write(".config/qemu-netwrap/config.toml", 'uplink_helper = "pasta"\n')
        done = netwrap(user, *NAT)
        assert done.returncode == 0
        assert "guests reach each other only: pasta has a sandbox of mounts" in done.stderr
        assert "apt install slirp4netns" in done.stderr
        netwrap(user, "wait", check=True)


class TestNoTap:
    """What needs no tap is told, in words that work."""

    @pytest.mark.parametrize("mode", [None, 0o600])
    def test_what_works_instead(self, uplinked: Uplinked, watch: Watch, mode: int | None) -> None:
        user = User(uplinked.host, tun=mode)
        watch.baseline(uplinked.host)
        instead = line(user, "without taps")["found"]
        for told in (refused(user, *NAT), refused(user, "plan", *NAT)):
            assert "taps: /dev/net/tun: " in told
            assert instead in told
        assert line(user, "/dev/net/tun")["state"] == "broken"
        assert "-nic user" in instead
        start, _, words = instead.partition("passt: ")[2].partition(f" && {QEMU} ")
        user.sh(start)
        net = shlex.split(words.replace("$HOME", user.home))
        with Shell(user, *net, name="one") as one:
            assert one.get(WEB) == WEB_BODY
        user.sh('rm "$HOME/passt.sock"')

    def test_taps_can_be_had(self, user: User) -> None:
        told = json.loads(netwrap(user, "doctor", "--json").stdout)
        assert "without taps" not in {each["what"] for each in told["lines"]}


class TestStateFolder:
    """Where it cannot be, or is not to be trusted, the hint is one that the user can follow."""

    @pytest.mark.parametrize("is_foreign", [True, False])
    def test_another_one_is_named(self, host: Host, watch: Watch, *, is_foreign: bool) -> None:
        user = User(host, runtime=False)
        if is_foreign:
            host.run("mkdir", f"/tmp/qemu-netwrap-{user.uid}")  # noqa: S108
        else:
            read_only(host, "/tmp")  # noqa: S108 - the simulated machine's
        watch.baseline(host)
        for words in (("ps",), ("stop", "7"), ("gc",), NAT) if is_foreign else (("gc",), NAT):
            told = refused(user, *words)
            assert "sudo" not in told
            assert "root's" not in told
            hint = told.partition("for all commands: ")[2].rstrip("\n")
        user.sh(f"{hint}; {COMMAND} {shlex.join(NAT)}; {COMMAND} wait; {COMMAND} ps; {COMMAND} gc")
        user.sh('rmdir "$HOME/.run"')


class TestAppArmor:
    """Ubuntu's restriction, from 24.04 on: a user namespace without capabilities."""

    def test_setting_and_command_are_named(self, host: Host, watch: Watch) -> None:
        user = User(host, before=filtered())
        setting(host, APPARMOR, "1")
        watch.baseline(host)
        privilege = line(user, "privilege")
        assert privilege["state"] == "broken"
        assert (
            f"AppArmor allows users no capability in one (kernel.{APPARMOR} is 1)"
            in (privilege["found"])
        )
        command, _, other = privilege["remedy"].partition("  # ")
        assert command == f"sudo sysctl -w kernel.{APPARMOR}=0"
        assert "docs/rootless.md" in other
        told = refused(user, *NAT)
        assert "a network namespace of this user's own: Operation not permitted" in told
        assert privilege["remedy"] in told


def test_privilege_of_a_user_on_the_host(user: User) -> None:
    """Who was given CAP_NET_ADMIN alone works on the host's networks, which take more."""
    ambient = ("setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", "--clear-groups")
    words = ("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--", "env", "-i")
    done: subprocess.CompletedProcess[str] = user.host.run(
        *ambient, *words, COMMAND, "doctor", "--json", check=False
    )
    (told,) = (each for each in json.loads(done.stdout)["lines"] if each["what"] == "privilege")
    assert told["found"].startswith("not root, and without CAP_NET_RAW, CAP_NET_BIND_SERVICE")
    assert "sudo qemu-netwrap" in told["remedy"]
