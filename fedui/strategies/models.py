from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

from aggregator.core.config import StrategyConfig
from fedui.federations.models import Federation


class Strategy(models.Model):
    """A named configuration of a run. What it says is in its versions."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="strategies")
    name = models.SlugField(max_length=63)
    description = models.CharField(max_length=240, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "strategies"
        constraints = [
            models.UniqueConstraint(fields=["federation", "name"], name="strategy_name_unique_in_federation")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def latest(self) -> StrategyVersion:
        """Lists find out of many strategies at once, as `known_latest`."""
        known: StrategyVersion | None = self.__dict__.get("known_latest")
        return known or self.versions.select_related("created_by").latest("number")


class StrategyVersion(models.Model):
    """One wording of a strategy. A version is written once: an edit makes the next one."""

    strategy = models.ForeignKey(Strategy, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    config = models.JSONField(help_text="A StrategyConfig, as JSON.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["strategy", "number"], name="strategy_version_unique")]

    def __str__(self) -> str:
        return f"{self.strategy.name} v{self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise RuntimeError(
                f"{self} can't be changed: save a new version by fedui.strategies.services.save_version."
            )
        super().save(*args, **kwargs)

    @property
    def parsed(self) -> StrategyConfig:
        return StrategyConfig.model_validate(self.config)
