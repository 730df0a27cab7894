"""A Flower `ClientApp` (message API) as an app of FedUI, in the agent's own process. Nothing else imports Flower."""

from __future__ import annotations

import importlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client_agent.errors import BrokenApp, TaskRefused
from client_agent.flower.arrays import as_declared
from client_agent.flower.names import with_flowers_names
from client_agent.flower.offer import read_model
from client_agent.flower.project import Project, Values
from client_agent.sdk import App, Arrays, Config, Context, EvaluateResult, FitResult, Metrics
from protos.tensors import Array, CodecError, Parameters, Signature

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # A data owner's agent talks to the federation's server alone.

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, Metadata, RecordDict
from flwr.app import Context as FlowerContext
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp

NUM_EXAMPLES = "num-examples"
MAX_RUNS = 16
"""Of so many runs, the latest, the app's state is kept."""
SECONDS_TO_LIVE = 7 * 24 * 3600.0
"""Of a message. Flower wants a number; FedUI's server decides how long a task may take."""


def flower_app(reference: str, model: str) -> App:
    """The `ClientApp` at "module:attribute". `model` is a file of `numpy.savez`, or the "module:attribute" of a model or of
    what makes one: arrays by name, a list of them, an `ArrayRecord`, or a module of PyTorch. Raises `BrokenApp`."""
    found = _load(reference)
    if not isinstance(found, ClientApp):
        raise BrokenApp(f"{reference!r} is a {type(found).__name__}, not a flwr.clientapp.ClientApp.")
    if _has_client_fn(found):
        raise BrokenApp(
            f"{reference!r} is a ClientApp with a client_fn. Offer that function as an app of its own (client_agent.App), or "
            "start its client with start_client and use fedagent bridge."
        )
    initial = _parameters_of(model)
    module = sys.modules[reference.partition(":")[0]]
    project = Project.around(Path(module.__file__ or "."), module.__name__.partition(".")[0])

    def client_fn(context: Context) -> FlowerAppClient:
        return FlowerAppClient(found, initial, project, context.options)

    return App(project.name, project.version, "flower", client_fn, list(initial))


class FlowerAppClient:
    """Makes a message of each task, and of the reply what the task wants."""

    def __init__(
        self,
        app: Callable[[Message, FlowerContext], Message],
        initial: Parameters,
        project: Project,
        options: Mapping[str, str],
    ) -> None:
        self._app = app
        self._initial = initial
        self._signature = Signature.of(initial)
        self._defaults = project.run_config
        self._owners, self._node_config = project.placed(options)
        self._states: dict[str, RecordDict] = {}

    def get_parameters(self, config: Config) -> Arrays:
        return list(self._initial.values())

    def get_properties(self, config: Config) -> Metrics:
        return {}

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        reply = self._ask(MessageType.TRAIN, parameters, config)
        metrics = _metrics(reply)
        return self._arrays(reply), _count(metrics), metrics

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        metrics = _metrics(self._ask(MessageType.EVALUATE, parameters, config))
        count = _count(metrics)
        return float(metrics.pop(_loss_name(metrics))), count, metrics

    def _ask(self, kind: str, parameters: Arrays, config: Config) -> RecordDict:
        told = with_flowers_names(config)
        arrays = {name: FlowerArray(array) for name, array in zip(self._initial, parameters, strict=True)}
        content = RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord(told)})
        run = str(config.get("run_id", ""))
        try:
            reply = self._app(_message(kind, run, content), self._context(run, told))
        except ValueError as error:
            if str(error).startswith(f"No {kind} function registered"):
                raise TaskRefused(f"The Flower app has no function for {kind}.") from error
            raise
        if reply.has_error():
            raise BrokenApp(f"The Flower app answered with an error: {reply.error.reason}")
        return reply.content

    def _context(self, run: str, told: Values) -> FlowerContext:
        """With the state that the app left in this run. The owner's values go before the strategy's, and these before the app's."""
        state = self._states.pop(run, None) or RecordDict()
        self._states[run] = state
        while len(self._states) > MAX_RUNS:
            del self._states[next(iter(self._states))]
        run_config = {name: told.get(name, default) for name, default in self._defaults.items()} | self._owners
        return FlowerContext(
            run_id=_run_number(run), node_id=1, node_config=dict(self._node_config), state=state, run_config=run_config
        )

    def _arrays(self, reply: RecordDict) -> Arrays:
        records = reply.array_records
        record = records.get("arrays") or (next(iter(records.values())) if len(records) == 1 else None)
        if record is None:
            raise BrokenApp(
                f"The Flower app's reply has {len(records)} array records, and none of them is called 'arrays'."
            )
        if record.keys() != self._initial.keys():
            odd = sorted(record.keys() ^ self._initial.keys())
            raise CodecError(f"The Flower app's reply and the model don't have the same tensors: {', '.join(odd[:5])}.")
        return as_declared([record[name].numpy() for name in self._initial], self._signature)


def _message(kind: str, run: str, content: RecordDict) -> Message:
    metadata = Metadata(
        run_id=_run_number(run), message_id=uuid.uuid4().hex, src_node_id=0, dst_node_id=1, reply_to_message_id="",
        group_id="", created_at=time.time(), ttl=SECONDS_TO_LIVE, message_type=kind,
    )  # fmt: skip
    return make_message(metadata=metadata, content=content)


def _run_number(run: str) -> int:
    return int(run) if run.isdecimal() else 0


def _metrics(reply: RecordDict) -> Metrics:
    """Of all records; the values of a list under the list's name and their number."""
    metrics: Metrics = {}
    for record in reply.metric_records.values():
        for name, value in record.items():
            metrics |= {f"{name}.{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {name: value}
    return metrics


def _count(metrics: Metrics) -> int:
    if NUM_EXAMPLES not in metrics:
        raise BrokenApp(f"The Flower app's reply has no metric {NUM_EXAMPLES!r}.")
    return int(metrics.pop(NUM_EXAMPLES))


def _loss_name(metrics: Metrics) -> str:
    """Flower asks for no loss; its templates call it eval_loss."""
    candidates = [name for name in metrics if name.lower().endswith("loss")]
    for name in ("loss", "eval_loss", "eval-loss"):
        if name in candidates:
            return name
    if len(candidates) != 1:
        raise BrokenApp(
            f"No metric of the Flower app's evaluation is called loss or eval_loss; there are {', '.join(metrics)}."
        )
    return candidates[0]


def _has_client_fn(app: ClientApp) -> bool:
    """Flower lets no function be registered with such an app."""
    try:
        app.query()
    except ValueError:
        return True
    return False


def _load(reference: str) -> Any:
    """Also from the current folder, as Flower does."""
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # A module may raise anything while it is imported.
        raise BrokenApp(f"{reference!r} can't be loaded: {type(error).__name__}: {error}") from error


def _parameters_of(reference: str) -> Parameters:
    if reference.endswith(".npz"):
        return read_model(Path(reference))
    found = _load(reference)
    try:
        return _named(
            found() if (callable(found) and not hasattr(found, "state_dict")) or isinstance(found, type) else found
        )
    except Exception as error:  # the owner's own code
        raise BrokenApp(f"{reference!r} makes no model: {type(error).__name__}: {error}") from error


def _named(model: Any) -> Parameters:
    if hasattr(model, "state_dict"):
        model = model.state_dict()
    if isinstance(model, Sequence):
        model = {str(index): array for index, array in enumerate(model)}
    if not isinstance(model, Mapping):
        raise TypeError(f"a {type(model).__name__} is neither arrays nor a model with a state_dict")
    return {name: _as_array(tensor) for name, tensor in model.items()}


def _as_array(tensor: Any) -> Array:
    """NumPy's, PyTorch's or Flower's."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
    return np.array(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
