"""The settings of a NIC's virtual functions, by pyroute2.

Only keepers of runs that pass NICs through load this.
"""

from __future__ import annotations

import os
from typing import Any

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux.netlink import interface_state
from qemu_netwrap.linux.netlink.link_stats import IPRoute, NetlinkError
from qemu_netwrap.record import Record

RTEXT_FILTER_VF = 1  # include/uapi/linux/rtnetlink.h


class Vf(Record):
    """The settings of a virtual function, as text; empty if the driver does not report one.

    The kernel sets the VLAN together with its priority, and the two rates together.
    """

    mac: str = ""
    vlan: str = ""
    qos: str = ""  # the VLAN's priority
    spoofchk: str = ""
    trust: str = ""
    max_tx_rate: str = ""
    min_tx_rate: str = ""

    def requests(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return the requests for what is not empty: a name for messages, and attributes."""
        found: list[tuple[str, dict[str, Any]]] = []
        if self.mac:
            found.append((f"mac {self.mac}", {"mac": self.mac}))
        if self.vlan:
            vlan = {"vlan": int(self.vlan), "qos": int(self.qos or 0)}
            found.append((f"vlan {self.vlan}", {"vlan": vlan}))
        for key, value in (("spoofchk", self.spoofchk), ("trust", self.trust)):
            if value:
                found.append((f"{key} {value}", {key: int(value)}))
        if self.max_tx_rate:
            rate = {"max_tx_rate": int(self.max_tx_rate), "min_tx_rate": int(self.min_tx_rate or 0)}
            found.append((f"max_tx_rate {self.max_tx_rate}", {"rate": rate}))
        return tuple(found)

    def kept_with(self, wanted: Vf) -> Vf:
        """Return those of these settings that must be restored after WANTED has been set."""
        vlan, rate = bool(wanted.vlan), bool(wanted.max_tx_rate)
        return Vf(
            self.mac if wanted.mac else "",
            self.vlan if vlan else "",
            self.qos if vlan else "",
            self.spoofchk if wanted.spoofchk else "",
            self.trust if wanted.trust else "",
            self.max_tx_rate if rate else "",
            self.min_tx_rate if rate else "",
        )

    def missing_in(self, now: Vf) -> Vf:
        """Return those of these settings that differ from NOW."""
        same_vlan = (self.vlan, self.qos) == (now.vlan, now.qos)
        same_rate = (self.max_tx_rate, self.min_tx_rate) == (now.max_tx_rate, now.min_tx_rate)
        return self.replace(
            mac="" if self.mac == now.mac else self.mac,
            vlan="" if same_vlan else self.vlan,
            spoofchk="" if self.spoofchk == now.spoofchk else self.spoofchk,
            trust="" if self.trust == now.trust else self.trust,
            max_tx_rate="" if same_rate else self.max_tx_rate,
        )


def read_vf(pf: str, number: int) -> Vf:
    """Return the settings of virtual function NUMBER of the interface PF. Raises `HostError`."""
    with IPRoute() as ip:
        link = _link(ip, pf)
    listed = link.get_attr("IFLA_VFINFO_LIST")
    for info in listed.get_attrs("IFLA_VF_INFO") if listed else ():
        mac = info.get_attr("IFLA_VF_MAC")
        if mac["vf"] != number:
            continue
        switches = {
            key: str((info.get_attr(f"IFLA_VF_{key.upper()}") or {}).get(key, ""))
            for key in ("spoofchk", "trust")
        }
        vlan, rate = info.get_attr("IFLA_VF_VLAN"), info.get_attr("IFLA_VF_RATE")
        return Vf(
            mac["mac"],
            str(vlan["vlan"]) if vlan else "",
            str(vlan["qos"]) if vlan else "",
            **{key: value if value in ("0", "1") else "" for key, value in switches.items()},
            max_tx_rate=str(rate["max_tx_rate"]) if rate else "",
            min_tx_rate=str(rate["min_tx_rate"]) if rate else "",
        )
    raise HostError(
        f"{pf}: its driver tells nothing of virtual function {number}",
        f"see ip link show {pf}",
    )


def set_vf(pf: str, number: int, wanted: Vf) -> None:
    """Set virtual function NUMBER of PF; what is empty in WANTED stays. Raises `HostError`."""
    if wanted.max_tx_rate.strip("0"):
        interface_state.await_carrier(
            pf
        )  # igb accepts no rate above its link's, and none without a link
    with IPRoute() as ip:
        index = _link(ip, pf)["index"]
        for what, attributes in wanted.requests():
            try:
                ip.link("set", index=index, vf={"vf": number, **attributes})
            except NetlinkError as error:
                raise HostError(
                    f"{pf}: virtual function {number}: {what}: {os.strerror(error.code)}",
                    "its driver does not take that; the kernel's log says more: dmesg",
                ) from error


def _link(ip: IPRoute, pf: str) -> Any:  # noqa: ANN401 - pyroute2's message
    """Return a physical function's interface. Raises `HostError` if it is gone."""
    try:
        return ip.link("get", ifname=pf, ext_mask=RTEXT_FILTER_VF)[0]
    except NetlinkError as error:
        raise HostError(f"{pf}: {os.strerror(error.code)}", "see ip link") from error
