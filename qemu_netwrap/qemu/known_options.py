"""QEMU's option words, told apart by whether they take the next word as their argument.

QEMU looks a word up in one table (`lookup_opt` in system/vl.c, the table made from
qemu-options.hx) and, when the option takes an argument, swallows the next word whatever it
is. The table is the same for every target: an option of another architecture is looked up
first and refused afterwards.

The words are those of 2.9 (its qemu-options.hx), of 5.2 and 11.1 (the table inside the
program), and of 7.2 and 10.0 (the table inside the program, and each word tried on it).
None of them ever changed from one kind to the other. Whether one that 7.2 and 10.0 do not both
know is one, only the QEMU at hand can tell, and what it does not know it refuses.
"""

from __future__ import annotations

# The words that 7.2 and 10.0 both know, and those that came or went.
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
# What only some QEMUs have: the one at hand lists these in -help, if it has them.
SOMETIMES = frozenset((_OTHER_WITH_ARGUMENT + _OTHER_WITHOUT_ARGUMENT).split())

# `-help` explains an option from this column on; text that starts before it is the argument.
_EXPLANATION = 16
# Groups that a QEMU from 7.2 to 10.0 has (`qemu_add_opts`, and what `-machine` and its like are).
GROUPS = frozenset(
    """
    accel acpi action add-fd audiodev boot-opts chardev device drive fsdev fw_cfg global icount
    iscsi machine memory mon msg name net netdev nic numa object option-rom overcommit plugin
    realtime rtc run-with sandbox semihosting-config smbios smp-opts spice tpmdev trace virtfs vnc
    """.split()
)


def parse_help(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the option words of a `qemu -help` text: with an argument, and without.

    Hidden options and those of other architectures are not in such a text.
    """
    with_argument: set[str] = set()
    without_argument: set[str] = set()
    for line in text.splitlines():
        if line.startswith("-"):
            # Two words share a line: "-h or -help     display", "-fda/-fdb file  use 'file' as".
            head, _, rest = line.replace(" or -", "/-", 1).partition(" ")
            words = {word.lstrip("-") for word in head.split("/")}
            start = len(line) - len(rest.lstrip())
            # A long word pushes what follows it to the right: an argument by one space.
            argument = start < _EXPLANATION or (start > _EXPLANATION and not rest.startswith(" "))
            (with_argument if rest and argument else without_argument).update(words)
    return frozenset(with_argument), frozenset(without_argument - with_argument)


def netdev_words(text: str) -> frozenset[str]:
    """Return the kinds of netdev in a `qemu -help` text, and `KIND,KEY`: not all keys are named.

    The lines are like "-netdev user,id=str[,ipv4=on|off]", and go on below, with explanations.
    """
    found: set[str] = set()
    section = text.partition("\n-netdev ")[2].partition("\n-nic ")[0]
    for block in section.split("\n-netdev "):
        kind, *words = block.translate(str.maketrans("[]=,\n", "     ")).split() or [""]
        found.add(kind)
        found.update(f"{kind},{word}" for word in words)
    return frozenset(found)
