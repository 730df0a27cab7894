from __future__ import annotations

from django.db import models
from django.db.models import Q


class Worker(models.Model):
    """An aggregator worker that is up. One of them serves: agents are connected to it, and it drives all runs. The others stand by."""

    key = models.CharField(max_length=32, primary_key=True, help_text="Of this process alone.")
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    bind = models.CharField(max_length=300, help_text="Where its gRPC server listens while it serves.")
    address = models.CharField(max_length=300, help_text="Where agents find it.")
    serving = models.BooleanField(default=False)
    started_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(help_text="It renews this; later, it is taken for lost.")

    class Meta:
        ordering = ["-serving", "started_at"]
        constraints = [models.UniqueConstraint(fields=["serving"], condition=Q(serving=True), name="one_worker_serves")]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
