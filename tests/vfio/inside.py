"""What the tests of passing devices through have done inside the nested machine, by its agent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_PCI = Path("/sys/bus/pci/devices")
_ATTRIBUTES = ("driver_override", "sriov_numvfs", "sriov_drivers_autoprobe")
# Counted up by the kernel, or its own.
_UNSTEADY = ("mtu", "stable_secret", "mc_forwarding")


def snapshot() -> dict[str, Any]:
    """Return drivers, VFs, interfaces with all that leads through them, groups, our state."""
    devices = {}
    for folder in sorted(_PCI.iterdir()):
        files = [folder / name for name in _ATTRIBUTES]
        values = [file.read_text().strip() for file in files if file.exists()]
        driver = folder / "driver"
        devices[folder.name] = [driver.resolve().name if driver.exists() else "", *values]
    links = {}
    for link in _ip("-d", "link"):
        vfs = [_vf(vf) for vf in link.get("vfinfo_list", [])]
        up = "UP" in link["flags"]
        links[link["ifname"]] = [link["address"], link["mtu"], up, link.get("master"), vfs]
    addresses = {
        link["ifname"]: sorted(
            f"{a['local']}/{a['prefixlen']} {a.get('broadcast')} {a['scope']}"
            for a in link["addr_info"]
            if not a.get("dynamic") and (a["scope"] != "link" or a["family"] == "inet")
        )
        for link in _ip("addr")
    }
    routes = sorted(
        json.dumps({key: value for key, value in route.items() if key != "flags"}, sort_keys=True)
        for family in ("-4", "-6")
        for route in _ip(family, "route", "show", "table", "all")
        if route.get("protocol") != "kernel"
    )
    neighbours = sorted(json.dumps(each) for each in _ip("neigh", "show", "nud", "permanent"))
    groups = sorted(set(os.listdir("/dev/vfio") if Path("/dev/vfio").exists() else []) - {"vfio"})
    ours = [str(path) for path in sorted(Path("/run/qemu-netwrap").glob("**/*"))]
    return {
        "devices": devices,
        "links": links,
        "addresses": addresses,
        "routes": routes,
        "neighbours": neighbours,
        "settings": _settings(),
        "groups": groups,
        "ours": ours,
    }


def _settings() -> dict[str, str]:
    """Return the settings of NICs (net/*/conf) that differ from a new interface's."""
    found = {}
    for family in ("ipv4", "ipv6"):
        folder = Path("/proc/sys/net", family, "conf")
        for path in folder.glob("[el][ta][hn]*/*"):
            if path.name not in _UNSTEADY and os.access(path, os.R_OK):
                value = path.read_text()
                if value != (folder / "default" / path.name).read_text():
                    found[f"{family} {path.parent.name} {path.name}"] = value.strip()
    return found


def _ip(*words: str) -> list[dict[str, Any]]:
    """Return what ip(8) says of links."""
    done = subprocess.run(["ip", "-j", *words], check=True, capture_output=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _vf(vf: dict[str, Any]) -> dict[str, Any]:
    """Return what may be set of a VF."""
    names = ("vf", "address", "vlan_list", "rate", "spoofchk", "trust", "link_state")
    return {name: vf.get(name) for name in names}


def pci(path: str) -> list[str]:
    """Return vendor:device of every PCI device of a QEMU."""
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(path)
        stream = qmp.makefile("rw")
        stream.readline()
        answers = []
        for command in ("qmp_capabilities", "query-pci"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "return" not in (answer := json.loads(stream.readline())):
                pass
            answers.append(answer["return"])
    ids = [device["id"] for bus in answers[1] for device in bus["devices"]]
    return [f"{each['vendor']:04x}:{each['device']:04x}" for each in ids]


def record() -> dict[str, str]:
    """Return what of sysfs matters: files with their text, links with `-> ` before it, folders."""
    found = {}
    for bdf in sorted(os.listdir(_PCI)):
        folder = (_PCI / bdf).resolve()
        found[str(_PCI / bdf)] = f"-> {folder}"
        for name in (*_ATTRIBUTES, "class", "vendor", "device", "sriov_totalvfs"):
            if (folder / name).exists():
                found[str(folder / name)] = (folder / name).read_text()
        links = (folder / name for name in ("driver", "iommu_group", "physfn", "subsystem"))
        inner = (folder, *folder.glob("virtio[0-9]*"))
        found |= _links((*links, *folder.glob("virtfn*")))
        found |= _links(place / "subsystem" for place in inner)
        for net in (path for place in inner for path in place.glob("net/*")):
            found |= {str(net): "", str(Path("/sys/class/net", net.name)): f"-> {net}"}
            found |= _links([net / "device"])
    for link in Path("/sys/kernel/iommu_groups").glob("*/devices/*"):
        found |= _links([link])
    found |= _links(Path("/sys/class/iommu").iterdir())
    rows = Path("/proc/interrupts").read_text().splitlines()
    found["/proc/interrupts"] = next((f"{row}\n" for row in rows if " IR-" in row), "")
    return found


def _links(paths: Iterable[Path]) -> dict[str, str]:
    """Return those of some links that are there, and where they lead to."""
    return {str(path): f"-> {path.resolve()}" for path in paths if path.is_symlink()}


def _said(act: Any) -> str:  # noqa: ANN401 - a function
    """Do something; return the error that it ends with, as a user sees it."""
    from qemu_netwrap.errors import NetwrapError

    try:
        act()
    except NetwrapError as error:
        return f"{error.message}\n{error.hint}"
    return ""


def count(pf: str, number: str) -> str:
    """Have virtual functions made."""
    from qemu_netwrap.linux import pci as host

    return _said(lambda: host.set_vf_count(pf, int(number)))


def unbind(bdf: str) -> str:
    """Take a device from its driver, with three seconds' patience."""
    from qemu_netwrap.linux import pci as host

    # What is started later is forked from here, and must have its own.
    timeout, host.DRIVER_TIMEOUT = host.DRIVER_TIMEOUT, 3.0
    try:
        return _said(lambda: host.unbind(bdf))
    finally:
        host.DRIVER_TIMEOUT = timeout
