"""What a configuration means, in sentences for an operator: beside the form, and in the API."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from aggregator.core.config import (
    CohortConfig,
    LocalConfig,
    StoppingConfig,
    StrategyConfig,
    UpdateConfig,
)
from aggregator.core.modes import Buffered
from aggregator.core.registry import part_name
from aggregator.core.schedule import Constant, Cosine, Schedule, Step
from aggregator.core.strategies.base import Part
from fedui.clients.models import Client, Presence
from fedui.web.figures import duration, percent
from protos.encodings import Compression

logger = logging.getLogger(__name__)

_SIZES: Mapping[Compression, tuple[str, str]] = {
    "none": ("", "the size of a model"),
    "float16": ("float16 ", "half the size of a model"),
    "bfloat16": ("bfloat16 ", "half the size of a model"),
    "int8": ("int8 ", "about a quarter of the size of a model"),
}


@dataclass(frozen=True, slots=True)
class Statement:
    topic: str
    text: str
    level: Literal["info", "ok", "warn"] = "info"


def summary(config: StrategyConfig) -> Iterator[Statement]:
    """Of the configuration alone, whoever is there to run it."""
    if isinstance(config.mode, Buffered):
        yield Statement("Mode", " ".join(_buffered(config, config.mode)))
    else:
        yield Statement("Cohort", " ".join(_cohort(config.cohort)))
    yield Statement("Training", _training(config.local, trees=not config.aggregation.vectors))
    if config.update.send == "delta" or config.update.packing != "none":
        yield Statement("Transfer", " ".join(_transfer(config.update)))
    if (longest := config.update.clip_norm) is not None:
        yield Statement("Clipping", f"A step longer than {longest:g} is drawn in before it is aggregated.")
    if part_name(type(config.method)) != "none":
        yield Statement("Method", f"{config.method.title}. {_told(config.method, config.method.explain)}".strip())
    rule = config.aggregation
    yield Statement("Rule", f"{rule.title}. {_told(rule, lambda: rule.explain(config.fewest_updates))}".strip())
    if part_name(type(config.optimizer)) != "none":
        yield Statement("Server optimizer", f"{config.optimizer.title}.")
    yield Statement("Round", " ".join(_round(config) if config.mode.name == "synchronous" else _buffered_round(config)))
    yield Statement("Slow and lost", " ".join(_slow_and_lost(config)))
    yield Statement("Early stop", " ".join(_stopping(config.stopping)))
    yield Statement("Evaluation", _evaluation(config))
    if depends := config.depends_on_num_rounds:
        text = f"A run that is extended differs from one that had all its rounds from the beginning: in {' and '.join(depends)}."
        yield Statement("More rounds later", text)


def fleet_statement(config: StrategyConfig, clients: Iterable[Client]) -> Statement:
    """Whether those who are enrolled are enough. `clients` are the active ones."""
    wanted = config.cohort.labels.items()
    matching = [client for client in clients if wanted <= client.labels.items()]
    online = sum(client.presence == Presence.ONLINE for client in matching)
    if isinstance(config.mode, Buffered) and len(matching) < (size := config.mode.buffer_size):
        text = f"{_count(len(matching), 'enrolled client')} can never fill a buffer of {size}: each counts once in it."
        return Statement("Clients", text, "warn")
    enough = online >= config.cohort.min_clients
    match = "1 enrolled client matches" if len(matching) == 1 else f"{len(matching)} enrolled clients match"
    return Statement("Clients", f"{match}, {online} online now.", "ok" if enough else "warn")


def _cohort(config: CohortConfig) -> Iterator[str]:
    labels = ", ".join(f"{key}:{value}" for key, value in config.labels.items())
    whom = f"the clients with {labels}" if labels else "the clients"
    most = f", {config.max_clients:,} at most" if config.max_clients is not None else ""
    yield (
        f"A round wants updates of {percent(config.fraction, 0)} of {whom}{most}, and begins when {config.min_clients} are connected."
    )
    match config.order:
        case "cyclic":
            yield "Clients are asked in turn, round after round."
        case "available":
            yield "Those that have answered most reliably in the run are asked first."
    if config.over_selection > 1:
        wanted, asked = config.min_clients, math.ceil(config.over_selection * config.min_clients)
        yield f"For {_count(wanted, 'update')} it asks {asked}, where there are so many, and closes with the first {wanted}."


def _training(config: LocalConfig, *, trees: bool) -> str:
    epochs = _count(config.epochs, "boosting round" if trees else "epoch")
    if not isinstance(config.epochs_schedule, Constant):
        epochs = f"{epochs}{_schedule(config.epochs_schedule)}, rounded to at least 1,"
    rate = f"{config.learning_rate:g}{_schedule(config.schedule)}"
    return f"Each trains {epochs}{'' if trees else f' in batches of {config.batch_size}'}, at rate {rate}."


def _transfer(config: UpdateConfig) -> Iterator[str]:
    if config.compression == "top_k":
        yield from _top_k(config.keep)
    elif config.send == "delta":
        how, size = _SIZES[config.compression]
        yield f"Updates travel as {how}differences from the global model: {size} in float32."
    if config.send == "delta":
        yield "Clients whose fedagent is too old for that are left out."
    if config.packing != "none":
        yield f"Updates and models are packed by {config.packing} where that makes them smaller, for agents that know it; no bit changes."


def _top_k(keep: float) -> Iterator[str]:
    yield (
        f"Of the differences from the global model only the largest {100 * keep:.3g} % travel, 8 bytes each: "
        f"about {200 * keep:.3g} % of the size of a model in float32."
    )
    yield "Each client keeps the rest on its disk, and adds it to its next update that counts."


def _schedule(schedule: Schedule) -> str:
    match schedule:
        case Step(factor=factor, every=every):
            return f", times {factor:g} after every {_count(every, 'round')}"
        case Cosine(end=end):
            return f", falling along half a cosine to {percent(end, 0)} of it in the last round"
    return " in every round"


def _told(part: Part, explain: Callable[[], str]) -> str:
    """A part's own words. A custom part that can't find them must not take the page away."""
    try:
        return explain()
    except Exception:
        logger.exception("%s can't explain itself", part.title)
        return ""


def _round(config: StrategyConfig) -> Iterator[str]:
    deadline, quorum = duration(config.faults.deadline_seconds), config.faults.quorum
    yield f"Closes after {deadline} at the latest, and counts with {_count(quorum, 'update')} or more."
    if (needed := config.aggregation.fewest_updates()) > 1:
        yield f"The rule needs {needed}."
    yield f"After {_count(config.faults.max_abandoned, 'attempt')} without that the run fails."


def _slow_and_lost(config: StrategyConfig) -> Iterator[str]:
    faults = config.faults
    if isinstance(config.mode, Buffered):
        yield "Nobody needs a replacement: who is free is asked."
    elif faults.replace:
        yield "A client that drops out is replaced by another, as long as the time left is enough for that one."
    else:
        yield "A client that drops out is not replaced."
    if faults.own_deadlines:
        yield f"Each has {faults.own_margin:g} times its usual time, never more than the deadline, once three of its updates are known."
    if config.takes_partial_work:
        yield "Who runs out of time sends what its training has come to, where its app and fedagent can."
    elif faults.partial_work:
        yield "Unfinished training is not taken: only FedProx, and FedNova without another method, weigh it rightly."
    else:
        yield "Unfinished training is not taken."


def _stopping(config: StoppingConfig) -> Iterator[str]:
    measured = f"{config.source} {config.metric}"
    if config.target is not None:
        yield f"Ends when {measured} reaches {config.target:g} or {config.better}."
    if config.patience is not None:
        least = f" by more than {config.min_change:g}" if config.min_change else ""
        yield f"Ends when {measured} has not become {config.better}{least} for {_count(config.patience, 'round')}."
    if config.target is None and config.patience is None:
        yield "None. A run does all its rounds."


def _evaluation(config: StrategyConfig) -> str:
    evaluation, buffered = config.evaluation, isinstance(config.mode, Buffered)
    federated = evaluation.federated and not buffered
    by = [who for who, on in (("by the clients", federated), ("on the server", evaluation.server)) if on]
    every = "every round" if evaluation.every == 1 else f"every {evaluation.every} rounds"
    text = f"The model is measured {' and '.join(by)}, {every}." if by else "The model is never measured."
    return f"{text} Not by the clients, who train all the time." if buffered and evaluation.federated else text


def _buffered(config: StrategyConfig, mode: Buffered) -> Iterator[str]:
    labels = ", ".join(f"{key}:{value}" for key, value in config.cohort.labels.items())
    whom = f"All clients with {labels}" if labels else "All clients"
    if mode.concurrency is not None:
        whom = f"At most {_count(mode.concurrency, 'client')}{f' with {labels}' if labels else ''}"
    yield f"{whom} train at once, and none waits for a slower one; the run begins when {config.cohort.min_clients} are connected."
    alike = "clients count alike" if mode.weighting == "uniform" else "clients weigh by their examples"
    yield f"Every {_count(mode.buffer_size, 'update')} of different clients make the next model; {alike}."
    yield f"A step that is one version old counts {percent(mode.scale(1), 0)}, and none that is older than {mode.max_staleness}."


def _buffered_round(config: StrategyConfig) -> Iterator[str]:
    yield f"Counts with {_count(config.fewest_updates, 'update')}, its buffer; the quorum says nothing here."
    yield f"A client has {duration(config.faults.deadline_seconds)} for its update, and is asked again after that."
    wait = duration(config.faults.wait_for_clients_seconds)
    yield f"When nobody trains for {wait}, the attempt ends; after {_count(config.faults.max_abandoned, 'attempt')} the run fails."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
