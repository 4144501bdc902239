"""A link named like QEMU, earlier on PATH: nothing shows that it is not QEMU, but the network."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fidelity.running import is_qemu
from lab.hooked import has_state, links, pid_of, ps, wait_gone
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.netns import Host, Uplinked

REAL = "/usr/bin/qemu-system-x86_64"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
# How libvirt asks a QEMU what it can do.
PROBE = (
    *("-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg"),
    *("-qmp", "unix:/run/monitor,server=on,wait=off", "-pidfile", "/run/pid", "-daemonize"),
)


@pytest.fixture
def shims(host: Host, tmp_path: Path) -> Path:
    """A folder with links for all QEMUs there are."""
    folder = tmp_path / "shims"
    netwrap(host, "shim", "install", str(folder), check=True)
    assert (folder / QEMU).is_symlink()
    return folder


def path(*folders: Path) -> dict[str, str]:
    """Return an environment with folders before all else on PATH."""
    return {"PATH": ":".join([*map(str, folders), os.environ["PATH"]])}


def words_of(pid: int) -> list[str]:
    """Return a process's words; in the middle of execve it has none for a moment."""
    path = Path(f"/proc/{pid}/cmdline")
    wait_for(lambda: bool(path.read_bytes()), "QEMU's words")
    return path.read_text("utf-8").split("\0")[:-1]


@pytest.mark.parametrize(
    "words",
    [
        "-help", "--help", "-version", "-machine help", "-cpu help", "-netdev help", "-device help",
        "-nic model=help", "-nope", "-nic", "-M none -nic tap,nonsense=1", "-- -version",
    ],
)  # fmt: skip
def test_what_qemu_prints_is_the_same(host: Host, shims: Path, words: str) -> None:
    bare = host.run(QEMU, *words.split(), check=False)
    done = host.run(QEMU, *words.split(), check=False, env=path(shims))
    assert (done.returncode, done.stdout, done.stderr) == (
        bare.returncode, bare.stdout, bare.stderr,
    )  # fmt: skip
    assert not has_state(host)


def test_qemu_is_as_if_it_had_been_called(host: Host, shims: Path) -> None:
    """Its words, the first among them, and its executable."""
    child = host.popen(QEMU, *IDLE, "-nic", "user", env=path(shims))
    exe = Path(f"/proc/{child.pid}/exe")
    wait_for(lambda: exe.resolve() == Path(REAL), "QEMU")
    assert words_of(child.pid) == [QEMU, *IDLE, "-nic", "user"]
    assert not has_state(host)
    child.kill()


def test_a_program_that_asks_qemu_what_it_can(host: Host, shims: Path) -> None:
    host.run(QEMU, *PROBE, env=path(shims))
    pid = pid_of(host, "/run/pid")
    assert Path(f"/proc/{pid}/exe").resolve() == Path(REAL)
    assert not has_state(host)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "QEMU's end")
    host.run("rm", "-f", "/run/pid", "/run/monitor")


@pytest.mark.parametrize("typed", [QEMU, "absolute", "relative"])
def test_words_of_ours_without_dashes(uplinked: Uplinked, shims: Path, typed: str) -> None:
    host = uplinked.host
    program = {"absolute": str(shims / QEMU), "relative": f"./{QEMU}"}.get(typed, typed)
    child = host.popen(program, *IDLE, "-nic", "nat", env=path(shims), cwd=shims)
    wait_for(lambda: f"qn{child.pid}-0" in links(host), "the network")
    wait_for(lambda: Path(f"/proc/{child.pid}/exe").resolve() == Path(REAL), "QEMU")
    words = words_of(child.pid)
    # By its absolute path it cannot be told from one that PATH has led to.
    assert words[0] == (QEMU if typed == "absolute" else program)
    assert [run["run"] for run in ps(host)["runs"]] == [str(child.pid)]
    child.kill()
    child.wait()
    wait_gone(host)


def test_a_makefile_that_runs_qemu(uplinked: Uplinked, shims: Path, tmp_path: Path) -> None:
    host = uplinked.host
    (tmp_path / "Makefile").write_text(f"run:\n\t{QEMU} {' '.join(IDLE)} -nic nat\n", "utf-8")
    child = host.popen("make", "-s", "run", env=path(shims), cwd=tmp_path)
    wait_for(lambda: "qn-nat" in links(host), "the network")
    wait_for(lambda: any(run["state"] == "running" for run in ps(host)["runs"]), "QEMU")
    (run,) = ps(host)["runs"]
    wait_for(lambda: is_qemu(run["pid"]), "QEMU to mind its signals")
    netwrap(host, "stop", run["run"], check=True)
    assert child.wait(60) == 0
    assert not has_state(host)


def test_two_of_them_in_a_row(host: Host, shims: Path, tmp_path: Path) -> None:
    """Links to links, and copies of the program as of another installation: none finds itself."""
    copies = [tmp_path / "copy", tmp_path / "again"]
    for copy in copies:
        copy.mkdir()
        (copy / QEMU).write_bytes(Path(COMMAND).read_bytes())
        (copy / QEMU).chmod(0o755)
    chain = tmp_path / "chain"
    chain.mkdir()
    (chain / QEMU).symlink_to(shims / QEMU)
    version = host.run(REAL, "-version").stdout
    for folders in ((chain, shims), (shims, chain, shims), (*copies, shims), (shims, *copies)):
        assert host.run(QEMU, "-version", env=path(*folders), timeout=120).stdout == version
    only = f"PATH={chain}:{copies[0]}:{shims}:{copies[1]}"
    done = host.run("env", only, str(chain / QEMU), check=False)
    assert done.returncode == 127


def test_there_is_no_qemu_behind_it(host: Host, shims: Path) -> None:
    for folders in (shims, f"{shims}:/nowhere:{shims}"):
        done = host.run("env", f"PATH={folders}", str(shims / QEMU), "-version", check=False)
        assert done.returncode == 127
        assert f"{QEMU}: there is none on PATH behind {shims / QEMU}" in done.stderr
        assert "\n  hint: " in done.stderr


def test_the_launcher_itself_goes_past_them(uplinked: Uplinked, shims: Path) -> None:
    host = uplinked.host
    child = host.popen(COMMAND, "--", QEMU, *IDLE, "-nic", "nat", env=path(shims))
    wait_for(lambda: Path(f"/proc/{child.pid}/exe").resolve() == Path(REAL), "QEMU")
    assert len(ps(host)["runs"]) == 1
    child.kill()
    child.wait()
    wait_gone(host)


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ("user", ""),
        ("tap,ifname=tap0", "/dev/net/tun: this user may not open it"),
        ("bridge,br=br0", "/usr/lib/qemu/qemu-bridge-helper is not setuid"),
    ],
)
def test_an_ordinary_user_is_left_to_qemu(host: Host, net: str, told: str) -> None:
    """What needs privilege fails in QEMU's own words, behind ours with the remedy."""
    host.sh("mknod -m 600 /run/tun c 10 200; mount --bind /run/tun /dev/net/tun")
    folder = "/run/shims"  # all can read it
    netwrap(host, "shim", "install", folder, QEMU, check=True)
    words = [*IDLE, "-nic", net, *(["-version"] if net == "user" else [])]
    bare = host.run(*NOBODY, REAL, *words, check=False)
    done = host.run(*NOBODY, f"{folder}/{QEMU}", *words, check=False)
    ours = done.stderr.removesuffix(bare.stderr)
    assert done.returncode == bare.returncode
    assert done.stderr.endswith(bare.stderr)
    assert told in ours
    assert bool(told) == bool(ours)
    assert not has_state(host)
    netwrap(host, "shim", "remove", folder, check=True)
    host.sh("umount /dev/net/tun; rm /run/tun")


def test_the_network_that_the_environment_names(host: Host, shims: Path) -> None:
    env = path(shims) | {"QEMU_NETWRAP_NETWORK": "host-only"}
    child = host.popen(QEMU, *IDLE, "-nic", "tap", env=env)
    wait_for(lambda: "qn-host-only" in links(host), "the network")
    wait_for(lambda: Path(f"/proc/{child.pid}/exe").resolve() == Path(REAL), "QEMU")
    child.kill()
    child.wait()
    wait_gone(host)
    wrong = path(shims) | {"QEMU_NETWRAP_NETWORK": "nope"}
    done = host.run(QEMU, *IDLE, "-nic", "tap", env=wrong, check=False)
    assert done.returncode == 125
    assert "QEMU_NETWRAP_NETWORK=nope: there is no network 'nope'" in done.stderr


def test_install_and_remove(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    done = netwrap(host, "shim", "install", str(folder), QEMU, "kvm", check=True)
    assert done.stdout.split() == [str(folder / QEMU), str(folder / "kvm")]
    assert f'export PATH={folder}:"$PATH"' in done.stderr
    netwrap(host, "shim", "install", str(folder), QEMU, check=True)  # again
    assert "export" not in netwrap(
        host, "shim", "install", str(folder), QEMU, check=True, env=path(folder)
    ).stderr  # fmt: skip
    (folder / "mine").write_text("", "utf-8")
    removed = netwrap(host, "shim", "remove", str(folder), check=True).stdout.split()
    assert sorted(removed) == [str(folder / "kvm"), str(folder / QEMU)]
    assert [each.name for each in folder.iterdir()] == ["mine"]


def test_what_is_not_ours_is_not_replaced(host: Host, tmp_path: Path) -> None:
    (tmp_path / "kvm").write_text("mine", "utf-8")
    done = netwrap(host, "shim", "install", str(tmp_path), QEMU, "kvm")
    assert done.returncode == 125
    assert f"{tmp_path / 'kvm'} exists already" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["kvm"]
    assert netwrap(host, "shim", "remove", str(tmp_path), check=True).stdout == ""
    assert (tmp_path / "kvm").read_text("utf-8") == "mine"
    wrong = netwrap(host, "shim", "install", str(tmp_path), "ls")
    assert (wrong.returncode, "ls: that is no name of QEMU's" in wrong.stderr) == (125, True)


def test_it_loads_no_more_than_a_launch(host: Host, shims: Path) -> None:
    """By what Python says it has imported."""
    env = path(shims) | {"PYTHONVERBOSE": "1"}
    words = ("-version",)

    def loaded(*cmd: str) -> set[str]:
        done = subprocess.run(
            host.argv(*cmd), check=True, capture_output=True, text=True, env=os.environ | env
        )
        lines = done.stderr.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("import '")}

    assert loaded(QEMU, *words) - loaded(COMMAND, "--", REAL, *words) == set()
