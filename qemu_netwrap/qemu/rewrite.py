"""QEMU's command line with the provisioned taps: only the options concerned change."""

from __future__ import annotations

from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.qemu.netdev_schema import keys_of
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qemu_netwrap.model.run import Attachment
    from qemu_netwrap.qemu.command_line import CommandLine, Option
    from qemu_netwrap.qemu.guest_nics import GuestNic
    from qemu_netwrap.qemu.json_options import JsonObject
    from qemu_netwrap.qemu.netdev_options import NetOption
    from qemu_netwrap.qemu.readconfig import ConfigFile

# Keys dropped beside fd=: those QEMU rejects (net/tap.c, net_init_tap), and extensions.
REPLACED_BY_FD = tuple(
    "ifname script downscript vnet_hdr helper queues br network uplink hostfwd".split()
)


class Rewritten(Record):
    """What QEMU gets: changed arguments, options to leave out, texts of -readconfig files.

    All by the index of the option; a file at -1 is QEMU's qemu.conf, read before all options.
    """

    line: CommandLine
    values: Mapping[int, str]
    without: frozenset[int]
    files: Mapping[int, str]
    instead: Mapping[int, tuple[str, ...]] = {}  # words that replace an option

    def words(self, paths: Mapping[int, str]) -> tuple[str, ...]:
        """Return QEMU's words; PATHS has the path of each file with a text of `files`, by index."""
        named = {at: path for at, path in paths.items() if at >= 0}
        program, *others = self.line.with_values(
            {**self.values, **named}, self.without, self.instead
        )
        first = ("-no-user-config", "-readconfig", paths[-1]) if -1 in paths else ()
        return (program, *first, *others)


class AttachedNic(Record):
    """A provisioned netdev, the guest NICs on it, and what they got."""

    net: NetOption
    guest_nics: tuple[GuestNic, ...]
    attachment: Attachment
    macs: tuple[str, ...]  # one for each of guest_nics


def rewrite(
    line: CommandLine, files: Mapping[int, ConfigFile], granted: Iterable[AttachedNic]
) -> Rewritten:
    """Return what QEMU gets for LINE; FILES are its -readconfig files by the option's index."""
    changed: dict[Option, OptList | JsonObject] = {}
    settings: list[Option] = []
    for each in granted:
        changed[each.net.option] = _attached(each.net, each.attachment)
        settings += each.net.settings
        for nic, mac in zip(each.guest_nics, each.macs, strict=True):
            if not nic.mac:
                option = nic.entry.option
                opts = changed.get(option, nic.entry.opts)
                # An all-zero MAC means the default; the derived one replaces it.
                changed[option] = opts.without(nic.key).with_added((nic.key, mac))
                settings += nic.entry.settings
    # The changed options already include what -set added.
    without = frozenset(option.at for option in settings)
    return _placed(line, files, changed, without)


def _placed(
    line: CommandLine,
    files: Mapping[int, ConfigFile],
    changed: Mapping[Option, OptList | JsonObject],
    without: frozenset[int],
) -> Rewritten:
    """Put changed options back to where they came from: the words, or a file's text."""
    values: dict[int, str] = {}
    sections: dict[int, dict[int, OptList]] = {}
    for option, opts in changed.items():
        if option.number is None:
            values[option.at] = opts.render()
        elif isinstance(opts, OptList):
            sections.setdefault(option.at, {})[option.number] = opts
    texts = {at: files[at].rewritten(numbers) for at, numbers in sections.items()}
    return Rewritten(line, values, without, texts)


def _attached(net: NetOption, attachment: Attachment) -> OptList | JsonObject:
    """Return a netdev's options with the type and keys of its attachment."""
    dropped = REPLACED_BY_FD if attachment.keys else (*REPLACED_BY_FD, *keys_of("tap"))
    return net.opts.with_type(attachment.type).without(*dropped).with_added(*attachment.pairs)
