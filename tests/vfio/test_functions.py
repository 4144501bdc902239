"""Virtual functions: made, set through their physical function, passed through, and gone again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.chance import SEED, SOAK
from lab.netns import wait_for
from lab.tool import COMMAND
from vfio.shared import E1000E, IGB, device, inside, launch, refusal

if TYPE_CHECKING:
    from lab.nested import Job, Nested


def test_two_vms(machine: Nested) -> None:
    first = launch(
        machine, "-nic", "sriov,pf=eth0,vlan=7,mac=52:54:00:aa:bb:cc,spoofchk=off,max_tx_rate=100"
    )
    assert "8086:10ca" in inside(machine, "pci", "/mnt/job/qmp")
    second = launch(
        machine,
        *("-netdev", "sriov,id=n,pf=eth0,vf=3,trust=on", "-device", "vfio-pci,netdev=n,id=d"),
        ours=("--run-as", "nobody"),
    )
    assert "8086:10ca" in inside(machine, "pci", "/mnt/job/qmp")
    vfs = inside(machine, "snapshot")["links"]["eth0"][-1]
    assert vfs[0]["address"] == "52:54:00:aa:bb:cc"
    assert vfs[0]["vlan_list"][0]["vlan"] == 7
    assert not vfs[0]["spoofchk"]
    assert vfs[0]["rate"]["max_tx"] == 100
    assert vfs[3]["address"].startswith("52:54:00:")
    assert vfs[3]["trust"]
    assert vfs[1]["address"] == "00:00:00:00:00:00"
    assert f"is free: 3 by run {second.pid}" in refusal(machine, "-nic", "sriov,pf=eth0,vf=3")
    assert "has virtual functions" in refusal(machine, *device(IGB))
    user = machine.sh(
        f"stat -c %U /proc/{second.pid}; grep 'locked memory' /proc/{second.pid}/limits"
    )
    assert user.startswith("nobody\n")
    assert str((64 << 20) + (1 << 30)) in user
    machine.sh(f"kill {first.pid}")
    machine.until(f"! test -d /run/qemu-netwrap/*/runs/{first.pid}")
    during = inside(machine, "snapshot")
    assert during["links"]["eth0"][-1][0]["address"] == "00:00:00:00:00:00"
    assert during["devices"][IGB][2] == "7"  # the other's are in use
    machine.sh(f"kill -9 {second.pid}")


def test_functions_that_are_there_are_left(machine: Nested) -> None:
    assert "the device has not that many" in inside(machine, "count", IGB, "8")  # ERANGE
    machine.sh(f"""
        modprobe igbvf
        echo 2 >/sys/bus/pci/devices/{IGB}/sriov_numvfs
        ip link set eth0 up vf 0 mac 52:54:00:00:00:05
        ip link set eth0 vf 1 vlan 5 qos 3
        ip link set eth0 vf 1 spoofchk off
        ip link set $(ls /sys/bus/pci/devices/0000:01:10.0/net) up
    """)
    assert "there are virtual functions already" in inside(machine, "count", IGB, "3")  # EBUSY
    before = inside(machine, "snapshot")
    # The first is up, and so the host's; the second is taken, by its address, and gets a MAC.
    job = launch(machine, "-device", "vfio-pci,host=1:10.2")
    during = inside(machine, "snapshot")
    assert during["links"]["eth0"][-1][1]["address"].startswith("52:54:00:")
    assert during["devices"]["0000:01:10.2"][0] == "vfio-pci"
    said = refusal(machine, "-nic", "sriov,pf=eth0")
    assert "no virtual function of eth0 is free: 0 by the host (igbvf" in said
    assert "2 virtual functions now, so no vf=4" in refusal(machine, "-nic", "sriov,pf=eth0,vf=4")
    machine.sh(f"kill {job.pid}")
    machine.run(COMMAND, "wait")
    machine.run(COMMAND, "--", "true", "-nic", "sriov,pf=eth0,vlan=9,spoofchk=on,trust=on")
    machine.run(COMMAND, "wait")
    after = inside(machine, "snapshot")
    # igbvf gives a VF without a MAC a new one each time, and tells the physical function.
    for links in (before["links"], after["links"]):
        del links["eth0"][-1][1]["address"]
        for name in set(links) - {"eth0", "eth1", "eth2", "eth3", "eth4", "lo"}:
            del links[name][0]
    assert after == before
    machine.sh(f"echo 0 >/sys/bus/pci/devices/{IGB}/sriov_numvfs; ip link set eth0 down")


def test_several_of_one_run(machine: Nested) -> None:
    named = ("-nic", "sriov,pf=eth0,vf=0")
    assert "has that virtual function" in refusal(machine, *named, *named)
    # What stands for QEMU prints the words that it gets.
    done = machine.run(COMMAND, "--", "echo", "-nic", "sriov,pf=eth0", *named)
    got = [f"-device vfio-pci,host=0000:01:{vf} -nic none" for vf in ("10.2", "10.0")]
    assert done.stdout.strip() == " ".join(got)
    machine.until("! test -d /run/qemu-netwrap")


def test_what_somebody_has_come_to_use_is_left(machine: Nested) -> None:
    vf = "0000:01:10.2"
    machine.sh(f"""
        printf '#!/bin/sh\n%s\n' '{COMMAND} vfio bind {vf}' >/mnt/job/binds
        printf '#!/bin/sh\n%s\n' 'ip addr add 192.0.2.7/24 dev eth0' >/mnt/job/adds
        chmod +x /mnt/job/binds /mnt/job/adds
    """)
    machine.run(COMMAND, "--", "/mnt/job/binds", "-nic", "sriov,pf=eth0")
    machine.run(COMMAND, "wait")
    left = inside(machine, "snapshot")
    assert (left["devices"][IGB][2], left["devices"][vf][0]) == ("7", "vfio-pci")
    assert left["links"]["eth0"][2]
    machine.run(COMMAND, "vfio", "unbind", vf)
    machine.sh(f"echo 0 >/sys/bus/pci/devices/{IGB}/sriov_numvfs; ip link set eth0 down")
    machine.run(COMMAND, "--", "/mnt/job/adds", "-nic", "sriov,pf=eth0")
    machine.run(COMMAND, "wait")
    left = inside(machine, "snapshot")
    assert (left["devices"][IGB][2], left["links"]["eth0"][2]) == ("0", True)
    machine.sh("ip addr flush dev eth0; ip link set eth0 down")


def test_one_run_right_after_another(machine: Nested) -> None:
    words = ("-nic", "sriov,pf=eth0,vf=2", *device(E1000E))
    first = launch(machine, *words)
    inside(machine, "pci", "/mnt/job/qmp")
    assert f"(pid {first.pid})" in refusal(machine, *device(E1000E))
    keeper = keeper_of(machine, first)
    machine.sh(f"kill -STOP {keeper}; kill {first.pid}")
    first.wait()
    second = machine.start(COMMAND, "--", "true", *words)
    told = f"waiting for run {first.pid}, which is giving it back"
    wait_for(lambda: told in second.printed, "the next run to wait", 600)
    machine.sh(f"kill -CONT {keeper}")
    assert second.wait() == 0, second.printed
    machine.run(COMMAND, "--", "true", *words)


def keeper_of(machine: Nested, job: Job) -> str:
    """Return the number of a run's keeper, once it sleeps: not that of the shell that looks."""
    asleep = f"pgrep -f '[/]waiter.py .*/runs/{job.pid} '"
    return machine.sh(f"for i in $(seq 600); do {asleep} && break; sleep 0.1; done")


def test_a_keeper_that_is_killed(machine: Nested) -> None:
    words = ("-nic", "sriov,pf=eth0", *device(E1000E))
    job = launch(machine, *words)
    machine.sh(f"kill -9 {keeper_of(machine, job)}")
    # While QEMU lives nothing is touched: removing its VF would never return.
    machine.run(COMMAND, "gc")
    assert inside(machine, "snapshot")["devices"][IGB][2] == "7"
    machine.sh(f"kill -9 {job.pid}")
    job.wait()
    # The next launch wants just these.
    machine.run(COMMAND, "--", "true", *words)
    machine.run(COMMAND, "wait")


def test_killed_at_any_step(machine: Nested) -> None:
    words = ("-nic", "sriov,pf=eth0,vlan=3", *device(E1000E))
    machine.sh("""
        ip addr add 192.0.2.7/24 brd + dev eth3
        ip link set eth3 up
        ip route add 198.51.100.0/24 via 192.0.2.2
    """)
    cases = "100000" if SOAK else "8"
    program = str(Path(__file__).with_name("dying.py"))
    done = machine.run(sys.executable, program, cases, SEED, *words, timeout=20000)
    told = json.loads(done.stdout)
    assert told["wrong"] == [], f"SEED={SEED}"
    assert told["tried"] == min(int(cases), told["cases"])
    assert told["points"] > 50
    machine.sh("ip link set eth3 down; ip addr flush dev eth3")
