"""The data owner's say over a running agent: policy and pause, looked at anew whenever they matter."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from client_agent.errors import ConfigurationError, TaskRefused
from client_agent.flower.names import strategys_name
from client_agent.hosting import HostedApp
from client_agent.identity import Home, replace_private
from client_agent.methods import METHODS, Setting
from client_agent.pause import paused
from client_agent.policy import NOTHING, Leave, Policy, matches, read
from client_agent.resources import Resources
from protos.convert import Scalars, scalars_from_proto
from protos.fedui.v1 import task_pb2

log = logging.getLogger(__name__)

UNFORCED = "Its owner's policy can't be put in force; the agent's own log says why."
LOOK_SECONDS = 0.25
"""How soon a pause or a change of the policy takes effect."""

_WORK = {
    task_pb2.TASK_KIND_INITIALISE: "initialise",
    task_pb2.TASK_KIND_FIT: "train",
    task_pb2.TASK_KIND_EVALUATE: "evaluate",
    task_pb2.TASK_KIND_QUERY: "query",
}


class PolicyFile:
    """The policy as the file has it now. One that was named must be there; the one in the agent's folder may be missing."""

    def __init__(self, path: Path, *, required: bool = False) -> None:
        self.path = path
        self._required = required
        self._read_as: tuple[int, ...] | None = None
        self._policy = Policy()

    def now(self) -> Policy:
        """Raises `ConfigurationError` as long as the file is broken."""
        version = _version(self.path)
        if version is None and self._required:
            raise ConfigurationError(f"The policy {self.path} is missing.")
        if version != self._read_as:
            self._policy = read(self.path) if version else Policy()
            self._read_as = version
        return self._policy


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"The policy {path} can't be read: {error}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


class Owner:
    """What the owner lets this agent do. `policy` is that of the agent's folder when left out; `clock` tells the time of day
    with its zone."""

    def __init__(
        self,
        home: Home,
        federation: str,
        policy: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._pause_file = home.pause_file
        self._rounds = RoundsOfToday(home.rounds_file)
        self._federation, self._clock = federation, clock
        self._file = PolicyFile(policy or home.policy_file, required=policy is not None)
        self._resources = Resources()
        self._held: Policy | None = None
        self._problem = ""

    def policy(self) -> Policy:
        """The policy in force, its limits on processors and memory held. Raises `ConfigurationError`: then do nothing."""
        policy = self._file.now()
        if policy is not self._held:
            self._held = None
            self._resources.hold(policy.limits)
            self._held = policy
        return policy

    def unavailable(self) -> str:
        """Why no task is taken now, for the operator; empty if tasks are taken."""
        if reason := paused(self._pause_file):
            return reason
        try:
            policy = self.policy()
        except ConfigurationError as error:
            if self._problem != (problem := str(error)):
                self._problem = problem
                log.error("%s", problem)
            return UNFORCED
        self._problem = ""
        if not matches(policy.federations, self._federation):
            return f"Its owner's policy allows no work for the federation {self._federation}."
        moment = self._clock().astimezone(policy.timezone)
        if policy.hours is not None and not any(window.holds(moment) for window in policy.hours):
            hours = ", ".join(window.text for window in policy.hours)
            return f"Outside the hours of its owner's policy: {hours} ({moment.tzname()})."
        return ""

    async def watch(self, told: Callable[[str], None]) -> None:
        """Call `told` with what `unavailable` says whenever that changes, until cancelled. It begins as empty."""
        last = ""
        while True:
            if (reason := self.unavailable()) != last:
                last = reason
                told(reason)
            await asyncio.sleep(LOOK_SECONDS)

    def check(self, task: task_pb2.Task, hosted: HostedApp | None) -> None:
        """Raises `TaskRefused` for what the policy doesn't allow; before anything is loaded, let alone trained."""
        if reason := self.unavailable():
            raise TaskRefused(reason)
        policy = self._in_force()
        if policy.tasks is not None and _WORK.get(task.kind) not in policy.tasks:
            raise _refusal(f"allows no tasks of the kind {_WORK.get(task.kind, task.kind)!r}")
        _check_app(policy, task, hosted)
        if task.kind == task_pb2.TASK_KIND_FIT:
            _check_protection(policy, task.protection)
        _check_limits(policy, scalars_from_proto(task.config))
        if task.kind == task_pb2.TASK_KIND_EVALUATE and not policy.leave.allows_metric("loss"):
            raise _refusal("lets no loss leave, which every evaluation tells")
        if task.kind == task_pb2.TASK_KIND_QUERY:
            _check_query(policy, task.query)

    def begin_training(self) -> None:
        """Count a training that is about to begin. Raises `TaskRefused` if it is one more than a day may have."""
        policy = self._in_force()
        if (most := policy.limits.rounds_a_day) is None:
            return
        today = self._clock().astimezone(policy.timezone).date().isoformat()
        if self._rounds.of(today) >= most:
            raise _refusal(f"limits rounds to {most:,} a day, and so many have been begun today")
        self._rounds.count(today)

    def leave(self) -> Leave:
        """What may leave now."""
        try:
            return self.policy().leave
        except ConfigurationError:
            return NOTHING

    def refusal_behind(self, error: BaseException) -> TaskRefused | None:
        """What an error really is that comes of the policy's limit of memory."""
        limit = self._held.limits.memory_mb if self._held else None
        if limit and (isinstance(error, MemoryError) or "can't allocate memory" in str(error)):  # NumPy's, and torch's
            return _refusal(f"allows {limit:,} MB of memory, which the task was about to exceed")
        return None

    def words_for(self, error: BaseException) -> str:
        """What the operator is told of an app's error."""
        kind = type(error).__name__
        return f"{kind}: {error}" if self.leave().errors == "text" else f"{kind}; its owner's policy keeps the text."

    def _in_force(self) -> Policy:
        try:
            return self.policy()
        except ConfigurationError:
            raise TaskRefused(UNFORCED) from None


class RoundsOfToday:
    """How many trainings were begun on the last day that had any; kept in a file, so that a restart is no way around."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, day: str) -> int:
        try:
            kept: Mapping[str, int] = json.loads(self._file.read_text())
            return int(kept.get(day, 0))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise TaskRefused(f"The agent can't tell how many rounds it has trained today: {error}") from error

    def count(self, day: str) -> None:
        try:
            replace_private(self._file, json.dumps({day: self.of(day) + 1}).encode())
        except OSError as error:
            raise TaskRefused(f"The agent can't count the rounds of today: {error.strerror}") from error


def _refusal(what: str) -> TaskRefused:
    return TaskRefused(f"The owner's policy {what}.")


def _check_app(policy: Policy, task: task_pb2.Task, hosted: HostedApp | None) -> None:
    if policy.apps is None:
        return
    rule = policy.apps.get(task.app)
    if rule is None or (rule.versions and task.app_version not in rule.versions):
        raise _refusal(f"doesn't allow the app {task.app} {task.app_version}")
    if rule.sha256 and hosted and hosted.sha256 != rule.sha256:
        raise _refusal(f"allows other code of the app {task.app} than this agent has loaded")


def _check_protection(policy: Policy, protection: task_pb2.Protection) -> None:
    require = policy.require
    if protection.cohort < require.cohort:
        raise _refusal(f"asks for {require.cohort:,} clients in a round; {_told(protection.cohort)}")
    if protection.quorum < require.quorum:
        raise _refusal(f"asks for {require.quorum:,} updates in every model; {_told(protection.quorum)} at least")
    if require.differential_privacy and not protection.differential_privacy:
        raise _refusal("asks for differential privacy, which this run has not")
    if require.secure_aggregation and not protection.secure_aggregation:
        raise _refusal("asks for secure aggregation, which this run has not")


def _told(number: int) -> str:
    return f"this run has {number:,}" if number else "the server doesn't tell how many this run has"


def _check_limits(policy: Policy, config: Scalars) -> None:
    """Of a value by each of the names under which an app may read it."""
    limits = policy.limits
    for told, value in config.items():
        name = strategys_name(told)
        if limits.epochs is not None and name == "epochs":
            total = _total_epochs(_as_number(told, value), config)
            if not total <= limits.epochs:
                raise _refusal(f"limits epochs to {limits.epochs:,} a round; this one would have {total:g}")
        for limited, most in limits.config.items():
            if strategys_name(limited) == name and not _as_number(told, value) <= most:
                raise _refusal(f"allows {told} up to {most:g}, not {value!r}")


def _total_epochs(epochs: float, config: Scalars) -> float:
    """Of all phases of the run's method, and never fewer than its epochs."""
    method = METHODS.get(str(config.get("method", "none")))
    if method is None or not math.isfinite(epochs):
        return epochs
    try:
        return max(epochs, method(Setting((), (), dict(config))).total_epochs(math.ceil(epochs)))
    except (KeyError, ValueError, OverflowError):  # settings that are no numbers: training fails by them too
        return epochs


def _as_number(name: str, value: object) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise _refusal(f"limits {name}, and {value!r} is no number")


def _check_query(policy: Policy, query: task_pb2.ColumnQuery) -> None:
    leave = policy.leave
    if not matches(leave.columns, query.column):
        raise _refusal(f"opens no column {query.column!r}")
    if policy.require.differential_privacy or policy.require.secure_aggregation:
        raise _refusal("asks for protection that queries have not")
    asked = {"moments": query.moments, "extremes": query.extremes, "histogram": bool(query.edges)}
    for statistic, wanted in asked.items():
        if wanted and leave.statistics is not None and statistic not in leave.statistics:
            raise _refusal(f"tells no {statistic} of a column")
