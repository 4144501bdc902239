"""`qemu-netwrap config`: check the configuration, and show the settings in effect."""

from __future__ import annotations

import itertools
import json as json_module
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qemu_netwrap.cli import declare
from qemu_netwrap.cli.output import echo
from qemu_netwrap.config import file as configfile
from qemu_netwrap.config import parse as core_config
from qemu_netwrap.config.effective import Setting, settings
from qemu_netwrap.model.network import Config
from qemu_netwrap.runtime.network_choice import defined

if TYPE_CHECKING:
    from qemu_netwrap.runtime.launch_options import LaunchOptions

app = declare.group("config")


@declare.command(app, "config check")
def check(
    context: typer.Context,
    file: Annotated[str, declare.argument("FILE", "config check")] = "",
) -> None:
    """Tell whether the configuration is right, or the first mistake in it."""
    found = configfile.find(file or context.obj.config)
    if not found:
        echo(_none())
        return
    text = configfile.read(found, named=bool(file or context.obj.config))
    config = core_config.parse(text, found)
    names = ", ".join(network.name for network in config.networks) or "none"
    echo(f"{found}: right; networks: {names}")
    unread = (path for path in configfile.usual() if path != found and os.path.exists(path))
    for path in () if file else unread:
        echo(f"{path}: is there too, and not read: one file counts")


@declare.command(app, "config show")
def show(context: typer.Context, json: declare.Json = False) -> None:
    """Show every setting that counts, and where it comes from."""
    request: LaunchOptions = context.obj
    found = configfile.find(request.config)
    text = configfile.read(found, named=bool(request.config)) if found else ""
    config = core_config.parse(text, found) if found else Config()
    shown = settings(config, defined(config), request.network, text)
    if json:
        echo(json_module.dumps({"file": found or None, **_data(shown)}, indent=2))
    else:
        head = f"# {found}" if found else f"# {_none()}"
        echo("\n".join([head, *_text(shown)]))


def _none() -> str:
    """Return the message for a missing configuration."""
    return (
        f"there is no configuration, and none is needed: no {' and no '.join(configfile.usual())}"
    )


def _data(shown: tuple[Setting, ...]) -> dict[str, Any]:
    """Return settings as data for JSON."""
    data: dict[str, Any] = {"networks": {}}
    for setting in shown:
        place = data["networks"].setdefault(setting.network, {}) if setting.network else data
        place[setting.key] = {"value": setting.value, "source": setting.source}
    return data


def _text(shown: tuple[Setting, ...]) -> list[str]:
    """Return settings as lines of TOML, with their sources in comments."""
    width = max((len(s.text) for s in shown if s.value is not None), default=0)
    lines = []
    for network, group in itertools.groupby(shown, lambda setting: setting.network):
        lines += ["", f"[networks.{network}]"] if network else []
        lines += [f"{setting.text.ljust(width)}  # {setting.source}" for setting in group]
    return lines
