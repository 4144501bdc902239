"""The only table of options and commands, with their values and their help.

The typer commands are declared from it (`cli.declare`). `tools/generate.py` generates from it the
words that the launch knows (`cli.splitter`), the tables of the three completions and the sections
OPTIONS and COMMANDS of the man page. It is data alone, and no launch loads it.

In texts, backticks enclose what is typed literally, and names of files. A value's name, such as
SECONDS, is written as in the usage line.
"""

from __future__ import annotations

from qemu_netwrap.model.network import types
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# The kind of a value or an argument, which decides how the shells complete it.
NETWORK, RUN, TAP, DEVICE = "network", "run", "tap", "device"
FILE, TOML, FOLDER = "file", "toml", "folder"
USER, VARIABLE, PROGRAM = "user", "variable", "program"
QEMU = "qemu"  # a program, followed by its own options
COMMAND = "command"  # the same, of any program
SECONDS = "seconds"
TOPIC = "topic"  # a command or a group of qemu-netwrap
KINDS = (
    *(NETWORK, RUN, TAP, DEVICE, FILE, TOML, FOLDER, USER, VARIABLE, PROGRAM, QEMU),
    *(COMMAND, SECONDS, TOPIC),
)


class Option(Record):
    """One option. If `value` is empty, it is a flag."""

    names: tuple[str, ...]  # as typed; the last is the long one
    help: str  # sentences for --help and the man page
    value: str = ""  # the value's name in usage lines
    kind: str = ""  # the value's kind, one of KINDS
    more: str = ""  # sentences for the man page only
    is_list: bool = False  # may be given several times, and the values add up
    informs: bool = False  # prints something instead of launching QEMU

    @property
    def name(self) -> str:
        """The long name, as typed."""
        return self.names[-1]

    @property
    def field(self) -> str:
        """The parameter of a command, or the field of `LaunchOptions`, that gets the value."""
        return self.name.removeprefix("--").replace("-", "_")


class Argument(Record):
    """One positional argument; if `is_list`, any number of them at the end."""

    name: str  # in usage lines
    help: str
    kind: str  # one of KINDS
    is_optional: bool = False
    is_list: bool = False

    @property
    def usage(self) -> str:
        """The argument as shown in a usage line of --help."""
        if self.is_optional:
            return f"[{self.name}]..." if self.is_list else f"[{self.name}]"
        return f"{self.name}..." if self.is_list else self.name


class Command(Record):
    """One command, or the program itself, for which `words` is empty."""

    words: str  # as typed: `network up`
    help: str  # a first sentence for lists of commands; after an empty line, the rest of --help
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    more: str = ""  # sentences for the man page only

    def option(self, name: str) -> Option:
        """Return the option with that long name. Raises `KeyError`."""
        return {option.name: option for option in self.options}[name]

    def argument(self, name: str) -> Argument:
        """Return the argument with that name. Raises `KeyError`."""
        return {argument.name: argument for argument in self.arguments}[name]


HELP = Option(("-h", "--help"), "Print help; each command has its own.", informs=True)
_JSON = Option(("--json",), "Print JSON for scripts.")
_ROOT = Option(("--root",), "The folder that `etc` is in.", "DIR", FOLDER, "By default `/`.")
_QEMU = Argument("QEMU", "QEMU's program.", QEMU)
_ARGS = Argument("ARGS", "QEMU's options, as they are.", QEMU, is_optional=True, is_list=True)
_NETWORK = Argument("NAME", "A network, or its bridge.", NETWORK)
_TAP = Argument("TAP", "The tap's name.", TAP)
_BDF = Argument("BDF", "A PCI address: 0000:01:00.0.", DEVICE)
_LINKS = Argument("DIR", "The folder of the links.", FOLDER)

PROGRAM_ITSELF = Command(
    "",
    """Set up the networks that a QEMU command line asks for, and become QEMU.

    When QEMU exits, everything that was set up is removed. QEMU gets its options unchanged, except
    those that name a network of qemu-netwrap.""",
    (_QEMU, _ARGS),
    (
        Option(("--network",), "The network of taps that name none.", "NAME", NETWORK),
        Option(("--config",), "The configuration, instead of the usual files.", "FILE", TOML),
        Option(
            ("--run-as",),
            "Run QEMU as another user, without capabilities, and confine it for good.",
            "USER",
            USER,
            "See `NOTES`.",
        ),
        Option(
            ("--keep-env",),
            "With `--run-as`: pass on this environment variable too.",
            "NAME",
            VARIABLE,
            "May be given several times, or with several names and commas between them.",
            is_list=True,
        ),
        Option(
            ("--yes-uplink",),
            "Let a bridge take in the NIC that the host is reached by.",
            more="Connections live on. An `uplink` of the configuration needs no such option.",
        ),
        Option(
            ("--bind-group",),
            "Give `vfio-pci` also the devices that share an IOMMU group with one that is passed"
            " through, and give them back.",
        ),
        Option(
            ("--force-uplink",),
            "Pass through also the NIC that carries the host's default route, or the SSH session"
            " that the launch is typed in.",
        ),
        Option(("-q", "--quiet"), "Suppress the summary of NICs."),
        Option(("-v", "--verbose"), "Show each step as the command it equals."),
        Option(("--debug",), "Show tracebacks."),
        Option(
            ("--version",),
            "Print the versions of qemu-netwrap, Python, and the QEMU found.",
            informs=True,
        ),
        HELP,
    ),
)

COMMANDS = (
    Command(
        "plan",
        "Show what a launch would do and undo, and QEMU's new options. Changes nothing.",
        (_QEMU, _ARGS),
        (_JSON,),
    ),
    Command(
        "ps",
        "Show runs with their NICs and leases, and networks in use.",
        options=(Option(("--all",), "Of all users; for root."), _JSON),
    ),
    Command(
        "stop",
        "End QEMU with its children, and return after the teardown.",
        (
            Argument(
                "RUN",
                "Runs, by the process id that QEMU was started under, or by the guest's name.",
                RUN,
                is_list=True,
            ),
        ),
        (
            Option(
                ("--timeout",),
                "How long QEMU may take after SIGTERM before it gets SIGKILL.",
                "SECONDS",
                SECONDS,
                "By default 10; from 0 to 1000000.",
            ),
        ),
        "Only the process that was started as QEMU, and its descendants, get a signal."
        " Whatever else keeps the run alive is named and left alone; the run is released all the"
        " same, and the exit status is 125."
        " A RUN is named by the process id that QEMU was started under, by its guest's name, or by"
        " QEMU's process id.",
    ),
    Command(
        "wait",
        """Return when the teardown of these runs, or of all, is over.

        It returns immediately for runs that have already ended.""",
        (Argument("RUN", "Runs; without one, all.", RUN, is_optional=True, is_list=True),),
    ),
    Command(
        "exec",
        """Run a command, or a shell, on a network, with its DNS.

        `qemu-netwrap` becomes the command: terminal, signals and exit status are the command's.""",
        (
            Argument("NETWORK", "A network that is up, or its bridge.", NETWORK),
            Argument(
                "COMMAND",
                "A command with its options; without one, `$SHELL`.",
                COMMAND,
                is_optional=True,
                is_list=True,
            ),
        ),
        more="Guests are reached by their names: `qemu-netwrap exec nat -- ssh web`."
        " An ordinary user's networks are in a network namespace of the user's own; in there the"
        " user has all rights over the network."
        " The exit status is 127 if there is no such command, 126 if it cannot be executed, and 125"
        " if the network is not up.",
    ),
    Command("gc", "Release what dead runs have left. Living runs are not touched."),
    Command(
        "network list",
        "Show all networks: configured, built in, or up.",
        options=(_JSON,),
        more="A star marks the default.",
    ),
    Command(
        "network show",
        "Show where a network is, who uses it, its leases and its faults.",
        (_NETWORK,),
        (_JSON,),
    ),
    Command(
        "network up",
        "Create a network if need be, and keep it up, with runs or without.",
        (Argument("NAME", "A network.", NETWORK),),
        more="It stays until `network down` or a reboot.",
    ),
    Command(
        "network down",
        "Stop keeping a network up: it is removed now, or with its last run.",
        (_NETWORK,),
    ),
    Command(
        "config check",
        "Check the configuration, and name the first mistake in it.",
        (Argument("FILE", "A file; else the one that is read.", FILE, is_optional=True),),
    ),
    Command(
        "config show",
        "Show every setting that counts, and the line it comes from.",
        options=(_JSON,),
    ),
    Command(
        "doctor",
        """Check what this host supports, and suggest a fix for each problem. Changes nothing.

        The exit status is 0 when bridge, nat and host-only work, else 1.""",
        options=(_JSON,),
        more="On a network that is up it sends one DHCP request and one answer of its own.",
    ),
    Command(
        "help",
        "Show the help of a command.",
        (
            Argument(
                "COMMAND",
                "A command of qemu-netwrap, or a group.",
                TOPIC,
                is_optional=True,
                is_list=True,
            ),
        ),
    ),
    Command(
        "ifup",
        """Put a tap on the default network, as `qemu-ifup` does.

        It stays there until the QEMU that has it open is gone; if none has, until `ifdown`.""",
        (_TAP,),
    ),
    Command(
        "ifdown",
        "Take a tap off the network that `ifup` or `qemu-ifup` has put it on.",
        (_TAP,),
    ),
    Command(
        "hooks install",
        "Install the scripts that QEMU calls by default. What is there is kept beside them.",
        options=(_ROOT,),
        more="The scripts are `/etc/qemu-ifup` and `/etc/qemu-ifdown`.",
    ),
    Command(
        "hooks remove",
        "Remove these scripts. What was there before is put back.",
        options=(_ROOT,),
    ),
    Command("hooks status", "Show whose scripts are there.", options=(_ROOT, _JSON)),
    Command(
        "shim install",
        "Create in DIR a link for each QEMU on `PATH`, or for those named.",
        (
            _LINKS,
            Argument(
                "NAME", "QEMU's names; else all there.", PROGRAM, is_optional=True, is_list=True
            ),
        ),
        more="Put DIR first on `PATH`."
        " Called by such a name, qemu-netwrap has no options of its own: all are QEMU's.",
    ),
    Command(
        "shim remove",
        "Remove these links from DIR, and DIR itself if it is empty then.",
        (_LINKS,),
    ),
    Command(
        "vfio list",
        "Show NICs, their VFs, IOMMU groups, drivers and holders."
        " What keeps one from being passed through is named.",
        options=(_JSON,),
    ),
    Command(
        "vfio bind",
        "Give a device to `vfio-pci` until `vfio unbind` or a reboot.",
        (_BDF,),
    ),
    Command(
        "vfio unbind",
        "Give a device back to its driver, with its interface as it was.",
        (_BDF,),
    ),
)

GROUPS = (
    Command("network", "List networks, and keep them up between runs."),
    Command("config", "Check and show the configuration."),
    Command("hooks", "Install the scripts that QEMU calls by default."),
    Command("shim", "Install links, so that qemu-system-* runs through qemu-netwrap."),
    Command("vfio", "Show devices that can be passed through, and bind them by hand."),
)


class Subject(Record):
    """Commands that belong together on the first screen."""

    title: str
    words: tuple[str, ...]  # of commands and groups
    examples: tuple[str, ...]


SUBJECTS = (
    Subject(
        "Launch a VM",
        ("plan",),
        (
            "qemu-netwrap -m 2G -nic nat,model=virtio disk.qcow2",
            "qemu-netwrap -- qemu-system-aarch64 -M virt -nic nat -name web disk.img",
            "qemu-netwrap plan -m 2G -nic nat disk.qcow2",
        ),
    ),
    Subject(
        "Running VMs",
        ("ps", "stop", "wait", "exec", "gc"),
        ("qemu-netwrap exec nat -- ssh web", "qemu-netwrap stop web"),
    ),
    Subject(
        "Networks",
        ("network", "config"),
        ("qemu-netwrap network show nat", "qemu-netwrap config check"),
    ),
    Subject(
        "This host",
        ("doctor", "hooks", "ifup", "ifdown", "shim", "vfio", "help"),
        ("qemu-netwrap doctor", "qemu-netwrap shim install ~/.local/lib/qemu-netwrap"),
    ),
)

# What the completions offer after -nic, -netdev and -net: types, and keys that need a value.
NETDEVS = (
    *(*types(), "tap", "bridge", "user", "none"),
    *("nat,hostfwd=", "tap,network=", "tap,br=", "bridge,br=", "sriov,pf="),
)


def of(words: str) -> Command:
    """Return the command or group of these WORDS; for "" the program itself. Raises `KeyError`."""
    return {each.words: each for each in (PROGRAM_ITSELF, *GROUPS, *COMMANDS)}[words]


def subcommands(words: str) -> Iterator[str]:
    """Yield the words that can follow a group's WORDS; for "" the program's commands and groups."""
    before = words.split()
    typed = (command.words.split() for command in COMMANDS)
    longer = (each for each in typed if each[: len(before)] == before and each != before)
    yield from dict.fromkeys(each[len(before)] for each in longer)
