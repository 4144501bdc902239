"""An assembler for classic BPF (linux/filter.h): for filters of tc(8), and of sockets.

A program is a list of lines: labels, and instructions with the labels that they jump to. Jumps lead
forward. (`seccomp` writes its own, since it can be for another byte order.)
"""

from __future__ import annotations

import struct

# linux/bpf_common.h. `ld` loads a word, `ldh` two bytes, `ldb` one.
_CODES = {
    "ld": 0x20, "ldh": 0x28, "ldb": 0x30, "ld_x": 0x40, "ldh_x": 0x48, "ldb_x": 0x50,
    "ld_mem": 0x60, "ldx_mem": 0x61, "ldx": 0x01, "ldx_ihl": 0xB1, "st": 0x02, "tax": 0x07,
    "add": 0x04, "add_x": 0x0C, "lsh": 0x64, "ja": 0x05, "ret": 0x06,
    "jeq": 0x15, "jeq_x": 0x1D, "jge": 0x35, "jgt": 0x25, "jset": 0x45,
}  # fmt: skip
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter

# A label; or an instruction: its name, its number, and the labels to go to if its condition holds
# and if it does not, where an empty one stands for the next instruction.
Line = str | tuple[str, int, str, str]


def assemble(lines: list[Line]) -> bytes:
    """Return a program as the kernel takes it, an array of struct sock_filter."""
    places: dict[str, int] = {}
    code: list[tuple[str, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(code)
        else:
            code.append(line)
    out = b""
    for at, (name, number, true, false) in enumerate(code, 1):
        if name == "ja":
            out += INSTRUCTION.pack(_CODES[name], 0, 0, places[true] - at)
        else:
            jumps = (places[label] - at if label else 0 for label in (true, false))
            out += INSTRUCTION.pack(_CODES[name], *jumps, number)
    return out


def text(program: bytes) -> str:
    """Return a program as tc-bpf(8) reads it (bytecode)."""
    code = [" ".join(map(str, each)) for each in INSTRUCTION.iter_unpack(program)]
    return f"{len(code)},{','.join(code)}"
