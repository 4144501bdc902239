"""`make bench`: qemu-netwrap against its peers, and against its budget."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from bench import (
    between,
    beyond,
    budget,
    libvirt,
    peers,
    plot,
    report,
    rounds,
    stages,
    throughput,
    users,
)
from bench.report import Row
from lab.netns import CommandFailedError, Host, internet
from lab.user import User

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "benchmarks.md"
_MEASURED: Final = re.compile(r"(<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main() -> None:
    """Measure, and say what came out of it."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="of each launcher (20)")
    parser.add_argument("--json", action="store_true", help="every value, instead of tables")
    parser.add_argument("--write", action="store_true", help="tables and plot into docs/")
    args = parser.parse_args()
    # It led here. With it the commands under measure would start their interpreter twice.
    os.environ.pop("PYTHONPATH", None)
    with internet() as small, internet() as large:
        found = measure(small.host, large.host, args.rounds)
    if args.json:
        json.dump(report.plain(found), sys.stdout, indent=1)
        return
    text = "\n".join(tables(found)) + "\n"
    sys.stdout.write(text)
    if args.write:
        plot.draw(found["growth"], DOCS / report.PLOT)
        PAGE.write_text(_MEASURED.sub(lambda m: m[1] + text, PAGE.read_text("utf-8")), "utf-8")


def measure(host: Host, large: Host, count: int) -> dict[str, Any]:
    """Measure everything on HOST, and on LARGE what is crowded."""
    some = max(3, count // 3)
    for each in (host, large):
        peers.prepare(each)
    found: dict[str, Any] = {"on": report.machine()}
    say("nothing to provision")
    found["nothing"] = rounds.measure(host, peers.NOTHING, count)
    say("on a bridge")
    with rounds.nat_up(host):
        found["bridge"] = rounds.measure(host, peers.ON_A_BRIDGE, count)
    say("NAT from nothing")
    found["nat"] = rounds.measure(host, peers.NAT, count)
    say("an ordinary user")
    with internet() as theirs:  # an account changes the machine
        found["user, nat is up"], found["user, nat made"] = users.measure(theirs.host, count)
    say("an ordinary user's throughput")
    with internet() as theirs:
        found["between"] = between.measure(User(theirs.host), some)
    with internet() as theirs:
        found["beyond"] = beyond.measure(theirs, User(theirs.host), count)
    say("libvirt")
    found["libvirt"] = from_libvirt(some)
    say("stages")
    found["stages"] = stages.measure(host, count)
    say("keepers")
    found["memory"], found["woken"] = budget.keepers(host)
    say("many together")
    found["together"] = budget.together(host, max(3, count // 4))
    say("throughput")
    found["throughput"] = throughput.measure(host, some * 2)
    say("growth")
    found["growth"] = budget.growth(host, large, some)
    say("a crowded host")
    budget.fill(large)
    found["crowded"] = budget.crowded(host, large, count)
    return found


def say(what: str) -> None:
    """Tell what is going on."""
    sys.stderr.write(f"bench: {what}\n")


def from_libvirt(count: int) -> dict[str, list[float]] | str:
    """Measure libvirt, or say why it cannot be."""
    try:
        with internet() as both, libvirt.libvirt(both.host):
            return libvirt.measure(both.host, count)
    except (AssertionError, CommandFailedError, OSError) as error:
        return f"libvirt could not be started here: {error}"


def tables(found: dict[str, Any]) -> list[str]:
    """Return all that is to be said."""
    virt = found["libvirt"]
    return [
        *(f"- {what}: {which}" for what, which in found["on"].items()),
        "",
        "Milliseconds, medians. `added` and `ratio` are of pairs of the same round; `spread` is",
        "from the first quartile to the third.",
        "",
        "### The budget",
        "",
        *report.budget(rows(found)),
        "",
        "### On a bridge that is there",
        "",
        *report.launchers(found["bridge"], ends="quit to gone"),
        "",
        "### NAT made from nothing, until DHCP answers",
        "",
        *report.launchers(found["nat"], ends="quit to gone"),
        "",
        "### An ordinary user: nat that is up",
        "",
        *report.launchers(found["user, nat is up"], ends="quit to gone"),
        "",
        "### An ordinary user: nat made from nothing, until DHCP answers",
        "",
        *report.launchers(found["user, nat made"], ends="quit to gone"),
        "",
        "### An ordinary user: TCP of a guest with a server beyond the host",
        "",
        *beyond.table(found["beyond"]),
        "",
        "### libvirt",
        "",
        *([virt] if isinstance(virt, str) else report.commands(virt)),
        "",
        "### Nothing to provision",
        "",
        *report.launchers(found["nothing"], ends="quit to gone"),
        "",
        "### Where the milliseconds go",
        "",
        *report.stages(found["stages"]),
        "",
    ]


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the budget."""
    nothing, bridge, nat = found["nothing"], found["bridge"], found["nat"]
    joins, makes = found["user, nat is up"], found["user, nat made"]

    def added(table: dict[str, rounds.Figures], name: str) -> list[float]:
        base, *_ = table.values()
        return [a - b for a, b in zip(table[name].up, base.up, strict=True)]

    to_root = [a / b for a, b in zip(joins[users.USER].up, joins[users.ROOT].up, strict=True)]
    on_nat = "qemu-netwrap, nat that is up"
    more = f"{budget.INTERFACES} interfaces, {budget.RULES} rules, {budget.ROUTES} routes"
    crowded = [Row(f"{more}: {n}", v, "ms", 2, 1) for n, v in found["crowded"].items()]
    return [
        Row("added, bridge", added(bridge, "qemu-netwrap, bridge"), "ms", 40, 15),
        Row("added, nat that is up", added(bridge, on_nat), "ms", 40, 15),
        Row("added, nat made from nothing", added(nat, "qemu-netwrap, nat"), "ms", 55, 25),
        Row("added, nothing to provision", added(nothing, "qemu-netwrap"), "ms", 15, 9),
        Row("an ordinary user's launch, nat that is up, to root's", to_root, "", 1.1),
        Row("an ordinary user's nat made, more than root's", added(makes, users.USER), "ms", 120),
        Row("TCP guest to guest, a user's nat to root's", found["between"], "", 1.03, None, 0.97),
        *(Row(f"TCP beyond the host, a guest {way}, a user's nat to `-nic user`",
              beyond.ratios(found["beyond"], way, beyond.AUTO, beyond.SLIRP),
              "", math.inf, None, 0.97)
          for way in (beyond.SENDS, beyond.RECEIVES)),
        Row("last QEMU reaped to all gone", nat["qemu-netwrap, nat"].gone, "ms", 80, 60),
        Row(f"keeper's PSS, {budget.KEPT} running", found["memory"], "MB", 6.5, 3),
        *crowded,
        Row(f"{budget.TOGETHER} launches together, to bare", found["together"], "", 2, 1.6),
        *(Row(f"TCP {way}, to a tap made by hand", values, "", 1.03, None, 0.97)
          for way, values in found["throughput"].items()),
        Row("keeper's wake-ups", found["woken"], "", 0, 0),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
