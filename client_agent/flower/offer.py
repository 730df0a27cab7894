"""What a bridge offers to FedUI: an app whose training a Flower client does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client_agent import hosting
from client_agent.errors import BrokenApp, ConfigurationError, TaskRefused
from client_agent.flower.stream import FlowerClient
from client_agent.hosting import HostedApp
from client_agent.queries import OpenColumns
from client_agent.sdk import App, Context
from protos.tensors import Signature


@dataclass(frozen=True, slots=True)
class Offer:
    """Flower's arrays have no names, and its clients no name and version: the owner gives them."""

    name: str
    version: str
    tensor_names: Sequence[str] | None = None
    signature: Signature | None = None
    """Of the model, where the owner has written it down; else the client's own `get_parameters` shows it."""

    @classmethod
    def read(cls, name: str, version: str, file: Path | None) -> Offer:
        """`file` lists the tensors: their names, or name, dtype and shape of each. Raises `ConfigurationError`."""
        if file is None:
            return cls(name, version)
        try:
            tensors = json.loads(file.read_text())
            if all(isinstance(tensor, str) for tensor in tensors):
                return cls(name, version, tensors)
            signature = Signature.from_json(tensors)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"{file} doesn't list tensors: {error}. It is a JSON list of names, or of objects such as "
                '{"name": "weight", "dtype": "float32", "shape": [64, 10]}.'
            ) from error
        return cls(name, version, [tensor.name for tensor in signature.tensors], signature)

    def host(self, client: FlowerClient, client_name: str) -> HostedApp:
        """Called from a thread. Raises `BrokenApp` if the client's model isn't the one that is offered, or can't be told."""
        app = App(self.name, self.version, "flower", lambda context: client, self.tensor_names)
        context = Context(client_name)
        client.signature = self.signature
        hosted = HostedApp(app, client, self.signature, OpenColumns.of(app, context)) if self.signature else None
        try:
            found = hosting.host(app, context)
        except TaskRefused as refused:
            if hosted:
                return hosted
            raise BrokenApp(
                f"{refused} So its model is unknown: list its tensors in a file, and give that to the bridge by --signature."
            ) from refused
        if hosted and (misfit := hosted.signature.misfit(found.signature)):
            raise BrokenApp(f"The Flower client's model isn't the one of the signature file: {misfit}.")
        client.signature = found.signature
        return found
