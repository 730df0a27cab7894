"""What a bridge offers to FedUI: an app whose training a Flower client does."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client_agent import hosting
from client_agent.errors import BrokenApp, ConfigurationError, TaskRefused
from client_agent.flower.stream import FlowerClient
from client_agent.hosting import HostedApp
from client_agent.sdk import App, Arrays, Context
from protos.tensors import Parameters


@dataclass(frozen=True, slots=True)
class Offer:
    """Flower's arrays have no names, and its clients no name and version: the owner gives them."""

    name: str
    version: str
    tensor_names: Sequence[str] | None = None
    initial: Arrays | None = None
    """What runs begin with, where the owner has it in a file; else the client's own `get_parameters` tells."""

    @classmethod
    def of(cls, name: str, version: str, tensor_names: str | None, file: Path | None) -> Offer:
        """`tensor_names` are separated by commas; those of `file` stand in it. Raises `ConfigurationError`."""
        if file is None:
            return cls(name, version, tensor_names.split(",") if tensor_names else None)
        if tensor_names:
            raise ConfigurationError(f"The tensors have their names from {file}: leave --tensors out.")
        model = read_model(file)
        return cls(name, version, list(model), list(model.values()))

    def host(self, client: FlowerClient, client_name: str) -> HostedApp:
        """Called from a thread. Raises `BrokenApp` if there is no telling the client's model."""
        client.initial = self.initial
        app = App(self.name, self.version, "flower", lambda context: client, self.tensor_names)
        try:
            hosted = hosting.host(app, Context(client_name))
        except TaskRefused as refused:
            raise BrokenApp(
                f"{refused} So there is no telling its model: save one with numpy.savez, and give the file to the bridge as "
                "--initial-model."
            ) from refused
        client.signature = hosted.signature
        return hosted


def read_model(file: Path) -> Parameters:
    """The arrays that `numpy.savez` has written, by name and in its order. Raises `ConfigurationError`."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{file} is no file of numpy.savez that can be read: {error}") from error
