from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Aggregate, Count, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from fedui.catalog.models import App
from fedui.clients.models import Client
from fedui.federations.models import Federation
from fedui.strategies.models import StrategyVersion
from fedui.transitions import StatefulModel

if TYPE_CHECKING:
    from fedui.runs.condition import Condition


class RunStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    PAUSING = "pausing", "Pausing"
    PAUSED = "paused", "Paused"
    STOPPING = "stopping", "Stopping"
    COMPLETED = "completed", "Completed"
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"


DRIVEN = frozenset({RunStatus.RUNNING, RunStatus.PAUSING, RunStatus.STOPPING})
"""An aggregator drives such a run, or did and was lost. It holds a place among those that run at once."""
ENDED = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.FAILED})


class Priority(models.IntegerChoices):
    LOW = -1, "Low"
    NORMAL = 0, "Normal"
    HIGH = 1, "High"


class RunQuerySet(models.QuerySet["Run"]):
    def active(self) -> RunQuerySet:
        """Those for which an aggregator has, or will have, something to do by itself."""
        return self.filter(status__in=[RunStatus.QUEUED, *DRIVEN])

    def unfinished(self) -> RunQuerySet:
        return self.exclude(status__in=ENDED)

    def without_owner(self, now: datetime) -> RunQuerySet:
        """Active runs that no aggregator holds: never taken up, or the holder's lease has expired."""
        return self.active().filter(Q(lease_expires_at=None) | Q(lease_expires_at__lte=now))


class Run(StatefulModel):
    """One training job. The row holds its state machine and the lease of the aggregator that drives it.

    `lease_fencing` grows with every change of owner; a write of the engine carries the number it was given, and changes
    nothing when a newer one has been handed out.
    """

    TRANSITIONS = {
        RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.STOPPED, RunStatus.FAILED}),
        RunStatus.RUNNING: frozenset(
            {RunStatus.PAUSING, RunStatus.PAUSED, RunStatus.STOPPING, RunStatus.QUEUED, *ENDED}
        ),
        RunStatus.PAUSING: frozenset(
            {RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.STOPPING, RunStatus.QUEUED, *ENDED}
        ),
        RunStatus.PAUSED: frozenset({RunStatus.QUEUED, RunStatus.STOPPED}),
        RunStatus.STOPPING: ENDED,
        RunStatus.COMPLETED: frozenset({RunStatus.QUEUED}),  # extended
        RunStatus.STOPPED: frozenset(),
        RunStatus.FAILED: frozenset({RunStatus.QUEUED}),  # tried again
    }

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="runs")
    name = models.CharField(max_length=120)
    strategy_version = models.ForeignKey(StrategyVersion, on_delete=models.PROTECT, related_name="runs")
    app = models.ForeignKey(App, on_delete=models.PROTECT, related_name="runs")
    seed = models.PositiveBigIntegerField()
    num_rounds = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=RunStatus, default=RunStatus.QUEUED)
    reason = models.TextField(blank=True, help_text="Why the run ended, or what it waits for.")
    rounds_done = models.PositiveIntegerField(default=0, help_text="Number of the last committed round.")
    opened_round = models.PositiveIntegerField(
        default=0, help_text="For which the weights of clients were read last: an order that changes them counts later."
    )
    opened_by = models.PositiveIntegerField(default=0, help_text="Fencing number of the lease that read them.")
    pause_at_once = models.BooleanField(
        default=False, help_text="While pausing: whether the round in progress is dropped."
    )
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL)
    start_at = models.DateTimeField(null=True, help_text="While queued: not before this time.")
    queued_at = models.DateTimeField(
        default=timezone.now, help_text="Its place in the queue, among those of its priority."
    )
    max_retries = models.PositiveSmallIntegerField(default=0, help_text="How often it is tried again after a failure.")
    retries = models.PositiveSmallIntegerField(default=0, help_text="How often it has been, since somebody started it.")
    origin = models.ForeignKey(
        "ModelVersion", null=True, on_delete=models.PROTECT, related_name="forks",
        help_text="The model of another run that it began with.",
    )  # fmt: skip
    key = models.CharField(  # noqa: DJ001  # unique where there is one
        max_length=64, null=True, help_text="Who asks twice for a run with one key gets one run."
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=120, blank=True)
    lease_fencing = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["federation", "-id"], name="runs_by_federation")]
        constraints = [models.UniqueConstraint(fields=["federation", "key"], name="one_run_per_key")]

    def __str__(self) -> str:
        return f"Run {self.name}"

    @property
    def is_terminal(self) -> bool:
        """It has ended, though somebody may extend it or try it again."""
        return self.status in ENDED

    @property
    def has_begun(self) -> bool:
        return self.started_at is not None

    @property
    def condition(self) -> Condition:
        """What a reader should know of its state. `fedui.runs.condition.prefill` finds out of many runs at once."""
        if (known := self.__dict__.get("known_condition")) is not None:
            return known  # type: ignore[no-any-return]
        from fedui.runs.condition import condition_of

        return condition_of(self)

    @property
    def duration_seconds(self) -> float | None:
        if not self.started_at:
            return None
        return ((self.ended_at or timezone.now()) - self.started_at).total_seconds()

    @property
    def latest_model(self) -> ModelVersion | None:
        return self.models.order_by("-round_number").first()


class RoundStatus(models.TextChoices):
    RUNNING = "running", "Running"
    COMMITTED = "committed", "Committed"
    ABANDONED = "abandoned", "Abandoned"


class RoundQuerySet(models.QuerySet["Round"]):
    def with_totals(self) -> RoundQuerySet:
        """Rounds that know how many updates were asked for and came, and the bytes that went each way.

        Of a round that has ended its digest says it; only of the others are the participations counted.
        """
        parts = Participation.objects.filter(round=OuterRef("pk")).order_by()

        def total(name: str, counted: Aggregate) -> Coalesce:
            one_row = parts.values("round").annotate(total=counted).values("total")
            return Coalesce(f"digest__{name}", Subquery(one_row), 0, output_field=models.BigIntegerField())

        return self.annotate(  # type: ignore[no-redef]  # Declared on Round, for those who are given rows.
            expected=total("expected", Count("pk", filter=Q(replaces=None))),
            received=total("received", Count("pk", filter=Q(outcome=Outcome.COMPLETED))),
            bytes_up=total("bytes_up", Sum("bytes_up")),
            bytes_down=total("bytes_down", Sum("bytes_down")),
        )


class Round(models.Model):
    """One attempt at a round of a run."""

    expected: int
    received: int
    bytes_up: int
    bytes_down: int
    """By `RoundQuerySet.with_totals` alone, like the three above."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=16, choices=RoundStatus, default=RoundStatus.RUNNING)
    reason = models.TextField(blank=True)
    started_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, help_text="When the last update was taken in.")
    committed_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True, help_text="After the evaluation.")

    objects = RoundQuerySet.as_manager()

    class Meta:
        ordering = ["number", "attempt"]
        constraints = [
            models.UniqueConstraint(fields=["run", "number", "attempt"], name="round_attempt_unique"),
            models.UniqueConstraint(
                fields=["run", "number"], condition=Q(status="committed"), name="one_committed_attempt_per_round"
            ),
        ]

    def __str__(self) -> str:
        return f"Round {self.number} of {self.run}"


class RoundDigest(models.Model):
    """What pages show of all participations of a round that has ended, so that nobody reads them. Written by `fedui.runs.digests`."""

    round = models.OneToOneField(Round, on_delete=models.CASCADE, primary_key=True, related_name="digest")
    expected = models.PositiveIntegerField()
    received = models.PositiveIntegerField()
    bytes_up = models.PositiveBigIntegerField()
    bytes_down = models.PositiveBigIntegerField()
    spread = models.JSONField(
        help_text="By measure, its quantiles over the updates, and its median absolute deviation."
    )
    flagged = models.JSONField(help_text="Ids of the clients whose updates were unlike the others, the farthest first.")

    def __str__(self) -> str:
        return f"Digest of {self.round}"


class Outcome(models.TextChoices):
    PENDING = "pending", "In progress"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"
    REFUSED = "refused", "Refused"
    LOST = "lost", "Dropped out"
    LATE = "late", "Too late"
    REJECTED = "rejected", "Update rejected"
    CANCELLED = "cancelled", "Cancelled"


class ParticipationManager(models.Manager["Participation"]):
    """Leaves the sketches, 4 kB each, in the database; who wants them names the field."""

    def get_queryset(self) -> models.QuerySet[Participation]:
        return super().get_queryset().defer("update_sketch")


class Participation(models.Model):
    """One client in one attempt at a round: what it did, how long it took, how it ended."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="participations")
    client = models.ForeignKey(Client, on_delete=models.PROTECT, related_name="participations")
    outcome = models.CharField(max_length=16, choices=Outcome, default=Outcome.PENDING)
    reason = models.TextField(blank=True)
    download_seconds = models.FloatField(null=True)
    train_seconds = models.FloatField(null=True)
    upload_seconds = models.FloatField(null=True)
    bytes_down = models.PositiveBigIntegerField(default=0)
    bytes_up = models.PositiveBigIntegerField(default=0)
    num_examples = models.PositiveBigIntegerField(null=True)
    metrics = models.JSONField(default=dict, help_text="What the agent reported of its training.")
    update_sha256 = models.CharField(max_length=64, blank=True)
    staleness = models.PositiveIntegerField(
        default=0, help_text="Rounds since the client was asked, in a buffered run."
    )
    replaces = models.ForeignKey(
        Client,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Who had dropped out before, and in whose place this client was asked.",
    )
    steps_done = models.PositiveBigIntegerField(null=True, help_text="Steps of its training, where its app tells.")
    steps_planned = models.PositiveBigIntegerField(null=True, help_text="More than were done: it was ended early.")
    evaluation_loss = models.FloatField(null=True)
    evaluation_num_examples = models.PositiveBigIntegerField(null=True)
    evaluation_metrics = models.JSONField(default=dict)
    update_norm = models.FloatField(null=True, help_text="L2 norm of the update's step from the global model.")
    update_largest = models.FloatField(null=True, help_text="Size of the step's largest coordinate.")
    update_sketch = models.BinaryField(default=bytes, help_text="Of the step, packed: aggregator.core.statistics.")
    norm_ratio = models.FloatField(null=True, help_text="The norm, as a multiple of the round's median.")
    cosine_to_aggregate = models.FloatField(null=True)
    z_norm = models.FloatField(null=True, help_text="Robust z-score of the norm within the round.")
    z_cosine = models.FloatField(null=True, help_text="Robust z-score of the cosine within the round.")
    flagged = models.BooleanField(default=False, help_text="Whether the update was unlike the others of its round.")
    flag_reason = models.TextField(blank=True)

    objects = ParticipationManager()

    class Meta:
        ordering = ["client__name"]
        constraints = [models.UniqueConstraint(fields=["round", "client"], name="one_participation_per_client")]

    def __str__(self) -> str:
        return f"{self.client} in {self.round}"


class MetricSource(models.TextChoices):
    FIT = "fit", "Training, mean of the clients"
    FEDERATED = "federated", "Evaluation by the clients"
    SERVER = "server", "Evaluation on the server"


class Metric(models.Model):
    """A figure of the global model after a round (round 0 is the model that the run began with)."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    round_number = models.PositiveIntegerField()
    source = models.CharField(max_length=16, choices=MetricSource)
    name = models.CharField(max_length=63)
    value = models.FloatField()
    num_examples = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["round_number", "source", "name"]
        constraints = [models.UniqueConstraint(fields=["run", "round_number", "source", "name"], name="metric_unique")]

    def __str__(self) -> str:
        return f"{self.source} {self.name} of {self.run}, round {self.round_number}"


class ModelVersion(models.Model):
    """A global model that was committed, and where its file is."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="models")
    round_number = models.PositiveIntegerField()
    parent = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="children")
    key = models.CharField(max_length=200, help_text="Path of the safetensors file in the model store.")
    sha256 = models.CharField(max_length=64, help_text="Of the file.")
    size = models.PositiveBigIntegerField(help_text="Bytes of the file.")
    created_at = models.DateTimeField(auto_now_add=True)
    removed_at = models.DateTimeField(null=True, help_text="When retention has removed the file; the row stays.")

    class Meta:
        ordering = ["-round_number"]
        constraints = [models.UniqueConstraint(fields=["run", "round_number"], name="one_model_per_round")]

    def __str__(self) -> str:
        return f"Model of {self.run} after round {self.round_number}"


class CommandKind(models.TextChoices):
    """What people do to a run, as a chart's annotation says it."""

    START = "start", "Started at once"
    SCHEDULE = "schedule", "Scheduled"
    PRIORITISE = "prioritise", "Priority changed"
    PAUSE = "pause", "Paused"
    RESUME = "resume", "Resumed"
    STOP = "stop", "Stopped"
    CANCEL = "cancel", "Cancelled"
    EXTEND = "extend", "Extended"
    CLONE = "clone", "Cloned"
    FORK = "fork", "Forked"
    WEIGH = "weigh", "Weight of a client changed"


class RunCommand(models.Model):
    """An order that was obeyed: once a key, however often it came. Written by `fedui.runs.commands` alone."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="commands")
    key = models.CharField(max_length=64)
    kind = models.CharField(max_length=16, choices=CommandKind)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)
    at = models.DateTimeField(auto_now_add=True)
    round_number = models.PositiveIntegerField(help_text="The last committed round at that time.")
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["run", "key"], name="one_command_per_key")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.run} by {self.actor_name}"


class KeepCheckpoints(models.TextChoices):
    ALL = "all", "All"
    EVERY = "every", "Every n-th"
    BEST_AND_LAST = "best_and_last", "The best and the last"


MOST_DAYS = 36_500
"""For which something may be kept for a time: a hundred years. Longer is for ever."""


class RunRules(models.Model):
    """How a federation runs and what it keeps. Where a field is empty, the installation's settings say it."""

    federation = models.OneToOneField(Federation, on_delete=models.CASCADE, related_name="run_rules")
    max_runs = models.PositiveIntegerField(null=True, blank=True, help_text="That run at once.")
    checkpoints = models.CharField(max_length=16, choices=KeepCheckpoints, blank=True)
    checkpoints_every = models.PositiveIntegerField(null=True, blank=True)
    progress_days = models.PositiveIntegerField(null=True, blank=True, help_text="0: for ever.")
    log_days = models.PositiveIntegerField(null=True, blank=True, help_text="0: for ever.")

    class Meta:
        verbose_name_plural = "run rules"

    def __str__(self) -> str:
        return f"Rules of {self.federation}"


class Event(models.Model):
    """What happened in a run, numbered without a gap from 1. The order is the engine's."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    kind = models.CharField(max_length=32)
    level = models.CharField(max_length=8)
    round_number = models.PositiveIntegerField(null=True)
    client = models.ForeignKey(Client, null=True, on_delete=models.SET_NULL, related_name="+")
    message = models.TextField()
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["seq"]
        constraints = [models.UniqueConstraint(fields=["run", "seq"], name="event_seq_unique_in_run")]

    def __str__(self) -> str:
        return f"Event {self.seq} of {self.run}: {self.kind}"
