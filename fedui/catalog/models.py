from __future__ import annotations

from django.db import models

from fedui.federations.models import Federation
from protos.tensors import Signature


class App(models.Model):
    """Training code that agents of a federation offer, known here by its name, version and model signature.

    The code itself lives at the agents. A row appears when the first agent offers the app; an agent that offers the same
    name and version with another signature can't take part in its runs.
    """

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="apps")
    name = models.CharField(max_length=63)
    version = models.CharField(max_length=32)
    signature = models.JSONField(help_text="Name, dtype and shape of each tensor, in order.")
    first_offered_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "-first_offered_at"]
        constraints = [
            models.UniqueConstraint(fields=["federation", "name", "version"], name="app_version_unique_in_federation")
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def model_signature(self) -> Signature:
        return Signature.from_json(self.signature)
