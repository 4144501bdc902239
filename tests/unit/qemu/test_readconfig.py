"""-readconfig files: read as QEMU's sscanf reads them, and lossless."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qemu_netwrap.qemu.readconfig import parse

LINES = st.sampled_from(
    [
        '[netdev "n0"]',
        "[nic]",
        "[ net ]",
        '  type = "nat"',
        'type="tap"',
        "# comment",
        "",
        "  ",
        "[",
        "x" * 1100,
        'a = "é',
        "\0",
    ]
)
TEXTS = st.lists(LINES | st.text(max_size=20)).map("\n".join)


@given(TEXTS)
@settings(deadline=None)
def test_an_unchanged_file_is_as_it_was(text: str) -> None:
    assert parse("vm.cfg", text).rewritten({}) == text


@given(TEXTS)
@example("[0")
@example('[0 "a')
@example('[nic "a"]')
@settings(deadline=None)
def test_a_changed_section_is_read_again_and_the_others_stay(text: str) -> None:
    file = parse("vm.cfg", text)
    for number, section in enumerate(file.sections):
        again = parse("vm.cfg", file.rewritten({number: section.opts.with_added(("fd", "64"))}))
        groups = [(s.group, dict.fromkeys(s.opts)) for s in file.sections]
        groups[number] = (section.group, dict.fromkeys([*section.opts, "fd"]))
        assert [(s.group, set(s.opts)) for s in again.sections] == [
            (group, set(keys)) for group, keys in groups
        ]
        others = [s.opts for at, s in enumerate(again.sections) if at != number]
        assert others == [s.opts for at, s in enumerate(file.sections) if at != number]


@pytest.mark.parametrize(
    ("text", "group", "pairs"),
    [
        ('[netdev "a"]\n type = "tap"\n', "netdev", {"id": "a", "type": "tap"}),
        ('[netdev "a"] x\n type = "tap" x\n', "netdev", {"id": "a", "type": "tap"}),
        ('[ netdev "a"\ntype="tap"\n', "netdev", {"id": "a", 'type="tap"': ""}),
        ("[nic]\n type = tap\n", "nic", {"type": ""}),
        ('[nic]\n type = "a"\n type = "b"\n', "nic", {"type": "b"}),
        ('[nic "a"]\n id = "b"\n', "nic", {"id": "b"}),
        ('[nic]\n type = "a,b"', "nic", {"type": "a,b"}),
    ],
)
def test_reads_a_section(text: str, group: str, pairs: dict[str, str]) -> None:
    (section,) = parse("vm.cfg", text).sections
    assert section.group == group
    assert {item.key: item.value for item in section.opts.items} == pairs


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nonsense", "no group defined"),
        ("[nic]\n  \n", "parse error"),
        ("[nosuch]\n", "There is no option group 'nosuch'"),
        ("[netdev a]\n", "There is no option group 'netdev a'"),
        ("# nothing\n\n", ""),
    ],
)
def test_what_is_no_configuration(text: str, fault: str) -> None:
    assert parse("vm.cfg", text).fault == fault
