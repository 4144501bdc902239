"""The version that a build has: from the tag, from the archive that git made, or the coming one.

An sdist has it in PKG-INFO, which hatchling reads by itself. pyproject.toml names `version` here;
tools/build_hook.py writes the result into the package.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

# As .git_archival.txt asks for it: tags of releases, such as v0.2.0.
_DESCRIBE: Final = "describe --tags --long --abbrev=8 --match=v*.*.* --exclude=v*[a-z]*".split()
_HASH_DIGITS: Final = 8


def version() -> str:
    """Return the version of the tree: 0.2.0 at its tag, else 0.3.0.devN+gHASH, N commits later."""
    return _of_checkout() or _of_archive() or f"{_coming()}.dev0"


def _of_checkout() -> str:
    """Return the version of a checkout: empty if it is none, or git cannot tell.

    Without a tag of a release, as where CI has fetched one commit, CHANGELOG.md tells the coming
    version; commits are counted if all of them are there.
    """
    if not (ROOT / ".git").exists():
        return ""  # not to describe a checkout that an unpacked archive lies in
    described = _git(*_DESCRIBE)
    if described:
        return _of_description(described)
    commit = _git("rev-parse", f"--short={_HASH_DIGITS}", "HEAD")
    if not commit:
        return ""
    is_whole = _git("rev-parse", "--is-shallow-repository") == "false"
    count = _git("rev-list", "--count", "HEAD") if is_whole else "0"
    return f"{_coming()}.dev{count}+g{commit}"


def _of_archive() -> str:
    """Return the version of what `git archive` has made: empty if it is none."""
    try:
        text = (ROOT / ".git_archival.txt").read_text("utf-8")
    except FileNotFoundError:
        return ""
    facts = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    if described := _of_description(facts.get("describe", "")):
        return described
    commit = facts.get("commit", "")
    if not re.fullmatch("[0-9a-f]{40,}", commit):
        return ""  # git has not filled it in: a checkout, or an sdist
    return f"{_coming()}.dev0+g{commit[:_HASH_DIGITS]}"


def _of_description(described: str) -> str:
    """Return the version that `git describe` tells, v0.1.0-12-g01234567; empty if it is no such."""
    # Without --long git leaves out the second half at the tag itself.
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)(?:-(\d+)-g([0-9a-f]+))?", described)
    if not match:
        return ""
    *numbers, count, commit = match.groups()
    if not int(count or 0):
        return ".".join(numbers)
    return f"{_after(*map(int, numbers[:2]))}.dev{count}+g{commit}"


def _coming() -> str:
    """Return the version after the newest release in CHANGELOG.md; 0.2.0 if there is none."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[(\d+)\.(\d+)\.\d+\]", text, re.MULTILINE)
    return _after(*map(int, newest.groups())) if newest else "0.2.0"


def _after(major: int, minor: int) -> str:
    """Return the version that comes after MAJOR.MINOR."""
    return f"{major}.{minor + 1}.0"


def _git(*words: str) -> str:
    """Return what git says of the tree; empty if it fails, or if there is no git."""
    # git reads no checkout of another user's (safe.directory), such as root's `make install` has.
    # Nothing is run there but what reads commits and tags: the build runs code of the tree anyway.
    command = ("git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *words)
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
