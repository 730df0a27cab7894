"""Options that several commands of `fedagent` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path, typer.Option(envvar="FEDAGENT_HOME", help="The agent's folder.", show_default="~/.fedagent")
]
AppOption = Annotated[list[str] | None, typer.Option(help='An app to offer: its name, or "module:attribute".')]
FlowerOption = Annotated[str | None, typer.Option(help='A Flower ClientApp to offer: "module:attribute".')]
FlowerModelOption = Annotated[
    str | None, typer.Option(help='Its model: "module:attribute", or a file of numpy.savez that ends with .npz.')
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="An option for the apps: key=value.")]
MinValuesOption = Annotated[
    int | None, typer.Option(help="Answer no query of a column with fewer values.", show_default="10")
]
MaxTasksOption = Annotated[
    int | None,
    typer.Option(help="Work on so many tasks at once; those of one app take turns to train.", show_default="1"),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(help="Tell Prometheus on this machine how the agent is, at this port.", show_default="none"),
]
PolicyOption = Annotated[
    Path | None, typer.Option(help="The owner's policy.", show_default="policy.toml in the agent's folder")
]
ProxyOption = Annotated[
    str | None, typer.Option("--proxy", help="Go out through this HTTP proxy.", show_default="the system's HTTPS_PROXY")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
