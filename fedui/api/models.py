from __future__ import annotations

from django.db import models


class StoredAnswer(models.Model):
    """What an unsafe call was answered, so that the same call again has no second effect (`fedui.api.once`).

    The answer is encrypted by a key that only who sent the `Idempotency-Key` can name: it may show a secret.
    """

    actor = models.CharField(max_length=40, help_text="The account or the API key that called.")
    key_hash = models.CharField(max_length=64)
    request_hash = models.CharField(max_length=64, help_text="Of method, path, query and body.")
    answer = models.BinaryField(null=True, help_text="Encrypted.")
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["actor", "key_hash"], name="one_answer_per_key")]

    def __str__(self) -> str:
        return f"Answer to {self.actor}"
