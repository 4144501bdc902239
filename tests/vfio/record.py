"""Records the sysfs of the nested machine for the unit tests, as tests/unit/data/sysfs.json.

    PYTHONPATH=tests .venv/bin/python tests/vfio/record.py

It has two virtual functions, one of them and a whole NIC on vfio-pci.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab.nested import Nested
from lab.tool import COMMAND
from vfio.shared import DEVICES, E1000E, IGB, inside, ready

TARGET = Path(__file__).parents[1] / "unit" / "data" / "sysfs.json"


def main() -> None:
    """Record."""
    with Nested(DEVICES) as machine:
        ready(machine)
        machine.sh(f"modprobe igbvf; echo 2 >/sys/bus/pci/devices/{IGB}/sriov_numvfs")
        machine.until("test -d /sys/bus/pci/devices/0000:01:10.2/net")
        for bdf in (E1000E, "0000:01:10.2"):
            machine.run(COMMAND, "vfio", "bind", bdf)
        found = inside(machine, "record")
    TARGET.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
