"""The models that a federation stands by: versions under a name, each a checkpoint of a run that was promoted."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from fedui.federations.models import Federation
from fedui.runs.models import ModelVersion
from fedui.transitions import StatefulModel


class Stage(models.TextChoices):
    CANDIDATE = "candidate", "Candidate"
    STAGING = "staging", "Staging"
    PRODUCTION = "production", "Production"
    ARCHIVED = "archived", "Archived"


class RegisteredModel(models.Model):
    """A name under which versions are promoted."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="registered_models")
    name = models.SlugField(max_length=80)
    description = models.TextField(blank=True, max_length=4000, help_text="What it is for, and what it isn't for.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["federation", "name"], name="registered_name_unique")]

    def __str__(self) -> str:
        return self.name


class RegisteredVersion(StatefulModel):
    """A checkpoint under a name. Its file is kept as long as the row: retention leaves it alone."""

    TRANSITIONS = {stage: frozenset(set(Stage) - {stage}) for stage in Stage}

    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    source = models.ForeignKey(ModelVersion, on_delete=models.RESTRICT, related_name="registrations")
    status = models.CharField(max_length=16, choices=Stage, default=Stage.CANDIDATE, verbose_name="stage")
    tags = models.JSONField(default=list, blank=True)
    notes = models.TextField(blank=True, max_length=4000)
    promoted_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    promoted_at = models.DateTimeField(auto_now_add=True)
    check_asked_at = models.DateTimeField(null=True, help_text="While a worker is to read the file.")
    checked_at = models.DateTimeField(null=True, help_text="When its file was last held against the SHA-256.")
    check_fault = models.TextField(blank=True, help_text="What was wrong then; empty if nothing was.")

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="registered_number_unique"),
            models.UniqueConstraint(fields=["model", "source"], name="registered_once_a_name"),
            models.UniqueConstraint(fields=["model"], condition=Q(status="production"), name="one_in_production"),
        ]

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"

    @property
    def stage(self) -> Stage:
        return Stage(self.status)


class StageChange(models.Model):
    """One move of a version from stage to stage; the first has no stage before it."""

    version = models.ForeignKey(RegisteredVersion, on_delete=models.CASCADE, related_name="changes")
    before = models.CharField(max_length=16, choices=Stage, blank=True)
    after = models.CharField(max_length=16, choices=Stage)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)
    at = models.DateTimeField(auto_now_add=True)
    note = models.CharField(max_length=400, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.version}: {self.before or 'promoted'} to {self.after}"
