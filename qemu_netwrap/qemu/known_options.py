"""QEMU's options, and whether each takes the next word as its argument.

QEMU looks a word up in one table (`lookup_opt` in system/vl.c, the table generated from
qemu-options.hx) and, if the option takes an argument, consumes the next word whatever it
is. The table is the same for every target: an option of another architecture is looked up
first and rejected afterwards.

The options are those of 2.9 (its qemu-options.hx), of 5.2 and 11.1 (the table inside the
program), and of 7.2 and 10.0 (the table inside the program, and each option tried on it).
None of them ever changed from one kind to the other. For an option that is not in both 7.2 and
10.0, the -help of the QEMU in use decides; QEMU rejects what it does not know.
"""

from __future__ import annotations

# The options of both 7.2 and 10.0, and those that were added or removed.
_STAYED_WITH_ARGUMENT = """
    accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev
    compat cpu D d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb
    fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k kernel L
    loadvm M m machine mem-path mon monitor msg mtdblock name net netdev nic numa object
    option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest
    qtest-log readconfig rtc sandbox sd seed semihosting-config serial set smbios smp
    spice tpmdev trace usbdevice uuid vga virtfs vnc watchdog-action xen-domid
"""
_OTHER_WITH_ARGUMENT = """
    balloon bootp bt chroot clock hdachs realtime redir rotate run-with runas shim smb
    soundhw startdate tb-size tftp virtioconsole watchdog writeconfig
"""

_STAYED_WITHOUT_ARGUMENT = """
    daemonize enable-kvm enable-sync-profile full-screen h help mem-prealloc
    no-fd-bootchk no-reboot no-shutdown no-user-config nodefaults nographic old-param
    only-migratable preconfig S s semihosting snapshot usb version win2k-hack xen-attach
    xen-domid-restrict
"""
_OTHER_WITHOUT_ARGUMENT = """
    alt-grab async-teardown audio-help ctrl-grab curses enable-fips enable-hax jitdump
    localtime no-acpi no-frame no-hpet no-kvm no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection
    no-quit nodefconfig perfmap portrait rtc-td-hack sdl show-cursor singlestep tdf virtfs_synth
    xen-create
"""

WITH_ARGUMENT = frozenset((_STAYED_WITH_ARGUMENT + _OTHER_WITH_ARGUMENT).split())
WITHOUT_ARGUMENT = frozenset((_STAYED_WITHOUT_ARGUMENT + _OTHER_WITHOUT_ARGUMENT).split())
# Options that only some versions have: the QEMU in use lists in -help those it has.
SOMETIMES = frozenset((_OTHER_WITH_ARGUMENT + _OTHER_WITHOUT_ARGUMENT).split())

# `-help` explains an option from this column on; text that starts before it is the argument.
_EXPLANATION = 16
# Option groups of QEMU 7.2 to 10.0 (`qemu_add_opts`, and groups such as that of `-machine`).
GROUPS = frozenset(
    """
    accel acpi action add-fd audiodev boot-opts chardev device drive fsdev fw_cfg global icount
    iscsi machine memory mon msg name net netdev nic numa object option-rom overcommit plugin
    realtime rtc run-with sandbox semihosting-config smbios smp-opts spice tpmdev trace virtfs vnc
    """.split()
)


def parse_help(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the options in a `qemu -help` text: those with an argument, and those without.

    The text lacks hidden options and those of other architectures.
    """
    with_argument: set[str] = set()
    without_argument: set[str] = set()
    for line in text.splitlines():
        if line.startswith("-"):
            # Two options share a line: "-h or -help     display", "-fda/-fdb file  use 'file' as".
            head, _, rest = line.replace(" or -", "/-", 1).partition(" ")
            words = {word.lstrip("-") for word in head.split("/")}
            start = len(line) - len(rest.lstrip())
            # After a long option, its argument follows at one space, an explanation at more.
            argument = start < _EXPLANATION or (start > _EXPLANATION and not rest.startswith(" "))
            (with_argument if rest and argument else without_argument).update(words)
    return frozenset(with_argument), frozenset(without_argument - with_argument)


def netdev_words(text: str) -> frozenset[str]:
    """Return the netdev types in a `qemu -help` text, and `TYPE,KEY`; the text lacks some keys.

    The lines look like "-netdev user,id=str[,ipv4=on|off]"; continuations and explanations follow.
    """
    found: set[str] = set()
    section = text.partition("\n-netdev ")[2].partition("\n-nic ")[0]
    for block in section.split("\n-netdev "):
        kind, *words = block.translate(str.maketrans("[]=,\n", "     ")).split() or [""]
        found.add(kind)
        found.update(f"{kind},{word}" for word in words)
    return frozenset(found)
