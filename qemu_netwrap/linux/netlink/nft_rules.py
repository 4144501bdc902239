"""Rules of nf_tables, decoded from the kernel's messages into conditions and verdicts.

Layouts and numbers are those of linux/netfilter/nf_tables.h, for what iptables has written those of
linux/netfilter/xt_*.h. The kernel's own numbers inside attributes are big-endian; values that are
compared are in host or network byte order.
"""

from __future__ import annotations

import _socket
import sys

from qemu_netwrap.linux.netlink import attributes
from qemu_netwrap.model import chain_verdicts
from qemu_netwrap.model.chain_verdicts import ACCEPT, DROP, GOTO, JUMP, RETURN, Condition, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Parts = dict[int, bytes]
    Element = tuple[bytes, bool, Rule]  # its key, whether it ends an interval, its verdict
    Elements = Callable[[str], list[Element]]

MARK = b"qemu-netwrap: "  # what comments of qemu-netwrap's rules begin with
_NAME, _DATA = 1, 2  # NFTA_EXPR_NAME, NFTA_EXPR_DATA
_VALUE, _VERDICT = 1, 2  # NFTA_DATA_VALUE, NFTA_DATA_VERDICT
_CODES = {0: DROP, 1: ACCEPT, -3: JUMP, -4: GOTO, -5: RETURN}  # NF_DROP … NFT_RETURN
_META = {
    4: chain_verdicts.IIF,
    5: chain_verdicts.OIF,
    6: chain_verdicts.IIF,
    7: chain_verdicts.OIF,
    16: chain_verdicts.PROTOCOL,
}
_BY_INDEX = (4, 5)  # NFT_META_IIF, NFT_META_OIF
# The fields of a packet by base, offset and whether it is IPv6's.
_TRANSPORT_PORT = (2, 2)  # NFT_PAYLOAD_TRANSPORT_HEADER
_ADDRESSES = {
    12: chain_verdicts.SOURCE,
    16: chain_verdicts.TARGET,
    8: chain_verdicts.SOURCE,
    24: chain_verdicts.TARGET,
}
_LENGTHS = {chain_verdicts.PORTS: (2,), chain_verdicts.PROTOCOL: (1,), chain_verdicts.CT: (4,)}
_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
# Statements after which the rule goes on; and those that end the chain without a verdict of their
# own.
_NO_CONDITION = frozenset(("counter", "log", "objref", "notrack", "dynset", "dup", "inner"))
_ENDS = frozenset(("masq", "nat", "redir", "tproxy", "queue", "fwd", "synproxy"))
_REFUSING = frozenset(("DROP", "REJECT"))
_HIGHEST = 65535
_INVERTED_PORT = 2  # XT_TCP_INV_DSTPT, XT_UDP_INV_DSTPT


class _Register:
    """What a register of a rule holds: a field, by its number, and the mask."""

    def __init__(self, field: str, *, by_index: bool = False, mask: bytes = b"") -> None:
        self.field = field
        self.by_index = by_index
        self.mask = mask


class _Reader:
    """The state of decoding one rule."""

    def __init__(self, elements: Elements) -> None:
        self.elements = elements
        self.registers: dict[int, _Register] = {}
        self.conditions: list[Condition] = []
        self.found: list[Rule] = []

    def end(self, verdict: str, target: str = "") -> None:
        self.found.append(Rule(tuple(self.conditions), verdict, target))

    def add(self, condition: Condition) -> None:
        self.conditions.append(condition)


def read(expressions: bytes, elements: Elements) -> list[Rule]:
    """Return a rule as conditions and a verdict: one, or one for each element of a verdict map.

    ELEMENTS is a function that returns the elements of a set.
    """
    reader = _Reader(elements)
    for _, raw in attributes(expressions, 0):
        part = within(raw)
        name, data = _text(part[_NAME]), within(part.get(_DATA, b""))
        if name in _READERS:
            _READERS[name](data, reader)
        elif name in _ENDS:
            reader.end(ACCEPT)
        elif name not in _NO_CONDITION:
            _load(data, reader, _Register(chain_verdicts.UNKNOWN))
            if name in ("limit", "connlimit", "quota"):
                reader.add(Condition())
    return reader.found


def verdict_of(data: bytes) -> Rule:
    """Return the verdict in an NFTA_DATA attribute, as a rule without conditions."""
    raw = within(within(data).get(_VERDICT, b""))
    if 1 not in raw:
        return Rule()
    code = int.from_bytes(raw[1], "big", signed=True)
    return Rule((), _CODES.get(code, ""), _text(raw.get(2, b"")))


def _load(data: Parts, reader: _Reader, register: _Register) -> None:
    if 1 in data:  # NFTA_*_DREG
        reader.registers[big_endian(data[1])] = register


def _meta(data: Parts, reader: _Reader) -> None:
    key = big_endian(data.get(2, b""))
    field = _META.get(key, chain_verdicts.UNKNOWN)
    _load(data, reader, _Register(field, by_index=key in _BY_INDEX))


def _payload(data: Parts, reader: _Reader) -> None:
    base, offset, length = (big_endian(data.get(kind, b"")) for kind in (2, 3, 4))
    field = chain_verdicts.UNKNOWN
    if base == 1:  # NFT_PAYLOAD_NETWORK_HEADER
        field = (
            chain_verdicts.PROTOCOL if (offset, length) == (9, 1) else _ADDRESSES.get(offset, field)
        )
    elif (base, offset, length) == (2, *_TRANSPORT_PORT):
        field = chain_verdicts.PORTS
    _load(data, reader, _Register(field))


def _ct(data: Parts, reader: _Reader) -> None:
    is_state = big_endian(data.get(2, b"")) == 0  # NFT_CT_STATE
    _load(data, reader, _Register(chain_verdicts.CT if is_state else chain_verdicts.UNKNOWN))


def _bitwise(data: Parts, reader: _Reader) -> None:
    source = reader.registers.get(big_endian(data.get(1, b"")), _Register(chain_verdicts.UNKNOWN))
    mask = within(data.get(4, b"")).get(_VALUE, b"")
    field = source.field if source.field in (*_ADDRESSES.values(), chain_verdicts.CT) else ""
    reader.registers[big_endian(data.get(2, b""))] = _Register(field, mask=mask)


def _cmp(data: Parts, reader: _Reader) -> None:
    register = reader.registers.get(big_endian(data.get(1, b"")), _Register(chain_verdicts.UNKNOWN))
    operator, value = big_endian(data.get(2, b"")), within(data.get(3, b"")).get(_VALUE, b"")
    met = _compared(register, operator, value)
    before = reader.conditions[-1:]
    if operator == _LTE and before and before[0].field == met.field == chain_verdicts.PORTS:
        # nft(8) encodes a range as two comparisons.
        (low,), (high,) = before[0].values[:1], met.values
        low, high = low.partition("-")[0], high.partition("-")[2]
        reader.conditions[-1] = Condition(chain_verdicts.PORTS, (f"{low}-{high}",))
    else:
        reader.add(met)


def _compared(register: _Register, operator: int, value: bytes) -> Condition:
    """Return the condition of comparing a register with a value."""
    field = register.field
    if field == chain_verdicts.CT and register.mask:
        # Of masked bits: none is set (==), or one (!=).
        return Condition(field, _states(register.mask), operator == _EQ)
    if operator in (_EQ, _NEQ):
        values = _values(register, value)
        return Condition(field, values, operator == _NEQ) if values else Condition()
    if field != chain_verdicts.PORTS:
        return Condition()
    port = int.from_bytes(value, "big")
    low = {_GT: port + 1, _GTE: port}.get(operator, 0)
    high = {_LT: port - 1, _LTE: port}.get(operator, _HIGHEST)
    return Condition(field, (f"{low}-{high}",))


def _range(data: Parts, reader: _Reader) -> None:
    register = reader.registers.get(big_endian(data.get(1, b"")), _Register(chain_verdicts.UNKNOWN))
    ends = [within(data.get(kind, b"")).get(_VALUE, b"") for kind in (3, 4)]
    if register.field != chain_verdicts.PORTS:
        reader.add(Condition())
        return
    low, high = (int.from_bytes(end, "big") for end in ends)
    reader.add(Condition(register.field, (f"{low}-{high}",), bool(big_endian(data.get(2, b"")))))


def _lookup(data: Parts, reader: _Reader) -> None:
    register = reader.registers.get(big_endian(data.get(2, b"")), _Register(chain_verdicts.UNKNOWN))
    name = _text(data.get(1, b""))
    if 3 in data and big_endian(data[3]):  # a map of values
        reader.registers[big_endian(data[3])] = _Register(chain_verdicts.UNKNOWN)
        reader.add(Condition())
    elif 3 in data:  # a map of verdicts
        for low, high, rule in _spans(reader.elements(name)):
            keys = _keys(register, low, high)
            met = Condition(register.field, keys) if keys else Condition()
            reader.found.append(rule.replace(conditions=(*reader.conditions, met)))
    elif not name.startswith("__") or not register.field:
        reader.add(Condition())  # its content may change
    else:
        found = [_keys(register, low, high) for low, high, _ in _spans(reader.elements(name))]
        values = tuple(key for keys in found for key in keys)
        is_known = bool(found) and all(found)
        negated = bool(big_endian(data.get(5, b"")) & 1)
        reader.add(Condition(register.field, values, negated) if is_known else Condition())


def _spans(elements: list[Element]) -> list[tuple[bytes, bytes, Rule]]:
    """Return a set's intervals: first key, the key after the last (b"" for a single), verdict."""
    ordered = sorted(elements, key=lambda each: (each[0], not each[1]))
    spans = []
    for number, (key, is_end, rule) in enumerate(ordered):
        if not is_end:
            following = ordered[number + 1 : number + 2]
            after = following[0][0] if following and following[0][1] else b""
            spans.append((key, after, rule))
    return spans


def _keys(register: _Register, low: bytes, after: bytes) -> tuple[str, ...]:
    """Return the values of an interval of a set; none if they are not known."""
    if not after:
        return _values(register, low)
    first, last = int.from_bytes(low, "big"), int.from_bytes(after, "big") - 1
    if register.field == chain_verdicts.PORTS:
        return (f"{first}-{last}",)
    if first == last:
        return _values(register, low)
    if register.field in (chain_verdicts.IIF, chain_verdicts.OIF) and not register.by_index:
        return (f"{_text(low)}*",)
    return (chain_verdicts.MANY,) if register.field in _ADDRESSES.values() else ()


def _values(register: _Register, value: bytes) -> tuple[str, ...]:
    """Return a value as conditions have it; none if it is not known."""
    field = register.field
    if len(value) not in _LENGTHS.get(field, range(17)):
        return ()  # a concatenation of fields
    if field in (chain_verdicts.IIF, chain_verdicts.OIF):
        return _device(register, value)
    if field == chain_verdicts.PORTS:
        port = int.from_bytes(value, "big")
        return (f"{port}-{port}",)
    if field in (chain_verdicts.SOURCE, chain_verdicts.TARGET):
        return (_width(value, register.mask),)
    if field == chain_verdicts.PROTOCOL:
        return (f"{value[0]}",) if value else ()
    return _states(value) if field == chain_verdicts.CT else ()


def _device(register: _Register, value: bytes) -> tuple[str, ...]:
    """Return a device's name; without a final zero it is a prefix (`eth*`)."""
    if not register.by_index:
        return (_text(value) if b"\0" in value or len(value) >= 16 else f"{_text(value)}*",)
    try:
        return (_socket.if_indextoname(int.from_bytes(value, sys.byteorder)),)
    except OSError:
        return ()


def _width(address: bytes, mask: bytes) -> str:
    """Return how many addresses an address with a mask stands for, as conditions have it."""
    if address[:1] == b"\x7f" and len(address) <= 4:
        return chain_verdicts.LOOPBACK
    is_whole = len(address) in (4, 16) and mask in (b"", b"\xff" * len(address))
    first = address[0] if address else 0
    is_unicast = any(address) and (first != 255 if len(address) == 16 else first < 224)
    return chain_verdicts.ONE if is_whole and is_unicast else chain_verdicts.MANY


def _states(value: bytes) -> tuple[str, ...]:
    bits = int.from_bytes(value, sys.byteorder)
    return tuple(name for bit, name in _STATES.items() if bits & bit)


def _immediate(data: Parts, reader: _Reader) -> None:
    rule = verdict_of(data.get(2, b""))
    if rule.verdict:
        reader.end(rule.verdict, rule.target)


def _reject(_data: Parts, reader: _Reader) -> None:
    reader.end(DROP)


def _target(data: Parts, reader: _Reader) -> None:
    """Decode one of iptables' targets; after those that do not end the chain the rule goes on."""
    if _text(data.get(1, b"")) in _REFUSING:
        reader.end(DROP)


def _match(data: Parts, reader: _Reader) -> None:
    """Decode one of iptables' matches; an unknown one becomes an unknown condition."""
    name, info = _text(data.get(1, b"")), data.get(3, b"")
    if name == "comment":
        if info.startswith(MARK):
            reader.add(
                Condition(chain_verdicts.CT)
            )  # a rule of qemu-netwrap's is for packets without a state
        return
    if name in ("tcp", "udp") and len(info) >= 9:
        low, high = (int.from_bytes(info[at : at + 2], sys.byteorder) for at in (4, 6))
        flags = info[11] if name == "tcp" and len(info) > 11 else info[8]
        if (low, high) != (0, _HIGHEST):
            inverted = bool(flags & _INVERTED_PORT)
            reader.add(Condition(chain_verdicts.PORTS, (f"{low}-{high}",), inverted))
        if name == "tcp" and info[9]:
            reader.add(Condition())
    elif name == "conntrack" and len(info) >= 152:
        # Behind eight addresses, two times and five ports: flags, inverted flags, states.
        about, inverse, states = info[146:148], info[148:150], info[150:152]
        is_state = int.from_bytes(about, sys.byteorder) == 1
        met = Condition(
            chain_verdicts.CT, _states(states), bool(int.from_bytes(inverse, sys.byteorder) & 1)
        )
        reader.add(met if is_state else Condition())
    elif name == "state":
        reader.add(Condition(chain_verdicts.CT, _states(info[:4])))
    elif name == "multiport" and len(info) >= 48 and info[0] == 1:
        ports = [int.from_bytes(info[at : at + 2], sys.byteorder) for at in range(2, 32, 2)]
        reader.add(
            Condition(chain_verdicts.PORTS, _listed(ports[: info[1]], info[32:47]), bool(info[47]))
        )
    else:
        reader.add(Condition())


def _listed(ports: list[int], begins: bytes) -> tuple[str, ...]:
    """Return multiport's list: BEGINS says for each port whether the next one ends its range."""
    spans, number = [], 0
    while number < len(ports):
        last = number + (1 if begins[number] and number + 1 < len(ports) else 0)
        spans.append(f"{ports[number]}-{ports[last]}")
        number = last + 1
    return tuple(spans)


_READERS: dict[str, Callable[[Parts, _Reader], None]] = {
    "meta": _meta,
    "payload": _payload,
    "ct": _ct,
    "bitwise": _bitwise,
    "cmp": _cmp,
    "range": _range,
    "lookup": _lookup,
    "immediate": _immediate,
    "reject": _reject,
    "target": _target,
    "match": _match,
}


def within(data: bytes) -> Parts:
    """Return the attributes nested in one, by type."""
    return dict(attributes(data, 0))


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def big_endian(raw: bytes) -> int:
    """Return a number of the kernel's inside an attribute."""
    return int.from_bytes(raw, "big")
