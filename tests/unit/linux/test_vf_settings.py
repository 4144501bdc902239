"""What the kernel is told of a virtual function, and what is put back."""

from __future__ import annotations

from qemu_netwrap.linux.netlink.vf_settings import Vf

BEFORE = Vf("52:54:00:00:00:01", "5", "3", "1", "0", "1000", "200")


def test_pairs_are_set_together() -> None:
    assert [attributes for _, attributes in BEFORE.requests()] == [
        {"mac": "52:54:00:00:00:01"},
        {"vlan": {"vlan": 5, "qos": 3}},
        {"spoofchk": 1},
        {"trust": 0},
        {"rate": {"max_tx_rate": 1000, "min_tx_rate": 200}},
    ]


def test_what_is_empty_is_not_set() -> None:
    assert Vf().requests() == ()
    assert [what for what, _ in Vf(vlan="7").requests()] == ["vlan 7"]
    assert Vf(qos="3", min_tx_rate="200").requests() == ()


def test_what_was_changed_is_put_back() -> None:
    wanted = Vf(vlan="7", max_tx_rate="100")
    assert BEFORE.kept_with(wanted) == Vf(vlan="5", qos="3", max_tx_rate="1000", min_tx_rate="200")
    assert BEFORE.kept_with(Vf("52:54:00:00:00:02", trust="1")) == Vf(
        "52:54:00:00:00:01", trust="0"
    )


def test_what_is_so_already_is_left() -> None:
    assert BEFORE.missing_in(BEFORE).requests() == ()
    now = BEFORE.replace(qos="0", min_tx_rate="0", trust="1")
    assert [what for what, _ in BEFORE.missing_in(now).requests()] == [
        "vlan 5",
        "trust 0",
        "max_tx_rate 1000",
    ]
