"""A policy in words, for `fedagent policy check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from client_agent.policy import STATISTICS, AppRule, Policy, Requirements

_WORK = {
    "initialise": "make the model that a run begins with",
    "train": "train",
    "evaluate": "evaluate models",
    "query": "answer queries of columns",
}


def explain(policy: Policy) -> Iterator[tuple[str, str]]:
    """Topic and sentence of each rule, and of each that the file leaves open."""
    limits, leave = policy.limits, policy.leave
    yield "federations", "any" if policy.federations is None else _listed(policy.federations)
    yield "work", "all kinds" if policy.tasks is None else _listed([_WORK[task] for task in policy.tasks])
    if policy.apps is None:
        yield "apps", "any that is offered"
    else:
        yield "apps", _listed([_app(name, rule) for name, rule in policy.apps.items()])
    zone = "this machine's time" if policy.timezone is None else str(policy.timezone)
    yield "hours", "any" if policy.hours is None else f"{_listed([w.text for w in policy.hours])}, {zone}"
    yield "epochs", _most(limits.epochs, "a round, all phases of a method together")
    yield "rounds", _most(limits.rounds_a_day, f"begun a day, {zone}")
    yield "processors", _most(limits.cpus, "")
    yield "memory", _most(limits.memory_mb, "MB of data")
    for name, most in limits.config.items():
        yield f"config {name}", f"at most {most:g}"
    yield "a round must have", _required(policy.require)
    yield "metrics that leave", "all" if leave.metrics is None else _listed(leave.metrics)
    yield "properties that leave", "all that the app tells" if leave.properties is None else _listed(leave.properties)
    yield "columns to queries", "all that the app opens" if leave.columns is None else _listed(leave.columns)
    statistics = STATISTICS if leave.statistics is None else leave.statistics
    yield "told of a column", _listed(["the number of values", *statistics])
    yield "facts of the machine", "all" if leave.machine is None else _listed(leave.machine)
    for name, rule in leave.cards.items():
        floor = (
            f"; labels with at least {rule.label_floor:,} examples, in steps of that"
            if "labels" in rule.publish
            else ""
        )
        yield f"data card of {name}", _listed(rule.publish) + floor
    if not leave.cards:
        yield "data cards", "none"
    yield "an app's errors", "with their text" if leave.errors == "text" else "only their type"


def _app(name: str, rule: AppRule) -> str:
    versions = f" {_listed(rule.versions, 'or')}" if rule.versions else ""
    return f"{name}{versions}" + (
        f" with the code sha256 {rule.sha256[:12]}…" if rule.sha256 else ", whatever its code"
    )


def _required(require: Requirements) -> str:
    rules = [
        f"at least {require.cohort} clients that are asked" if require.cohort else "",
        f"at least {require.quorum} updates in every model" if require.quorum else "",
        "differential privacy" if require.differential_privacy else "",
        "secure aggregation" if require.secure_aggregation else "",
    ]
    return _listed([rule for rule in rules if rule]) if any(rules) else "nothing"


def _most(number: int | None, unit: str) -> str:
    return "no limit" if number is None else f"at most {number:,} {unit}".rstrip()


def _listed(names: Iterable[str], last: str = "and") -> str:
    words = list(names)
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
