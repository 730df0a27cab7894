import secrets
from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from fedui.audit import chain
from fedui.audit.services import seal_of

VIA = [("web", "Web"), ("api", "REST API"), ("command", "Command line"), ("agent", "Agent"), ("engine", "Engine")]


def link(apps: Any, schema_editor: Any) -> None:
    """Put the entries that are there into the chain, in the order in which they were written."""
    entries = apps.get_model("audit", "AuditEvent")
    previous, number = chain.GENESIS, 0
    for entry in entries.objects.order_by("id").iterator():
        entry.details, entry.address = chain.settled(entry.details), chain.address(entry.address)
        entry.actor_name, entry.subject = chain.text(entry.actor_name), chain.text(entry.subject)
        entry.previous_hash, entry.nonce = previous, secrets.token_hex(16)
        values = {name: getattr(entry, name) for name in chain.CONTENT if name not in {"federation", "actor", "at"}}
        values["federation"] = str(entry.federation_id) if entry.federation_id else None
        entry.hash = chain.entry_hash(values | {"actor": entry.actor_id, "at": chain.timestamp(entry.at)})
        entry.save()
        previous, number = entry.hash, entry.pk
    head = {"number": number, "hash": previous, "seal": seal_of(number, previous)}
    apps.get_model("audit", "ChainHead").objects.create(pk=1, **head)


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial"), ("federations", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="ChainHead",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveBigIntegerField(default=0)),
                ("hash", models.CharField(default=chain.GENESIS, max_length=64)),
                ("seal", models.CharField(blank=True, max_length=64)),
            ],
        ),
        migrations.CreateModel(
            name="ChainCheck",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("number", models.PositiveBigIntegerField()),
                ("head", models.CharField(max_length=64)),
                ("entries", models.PositiveBigIntegerField()),
                ("faults", models.JSONField(default=list)),
            ],
            options={"ordering": ["-id"], "get_latest_by": "id"},
        ),
        migrations.AlterField(
            "auditevent",
            "federation",
            models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                db_constraint=False,
                related_name="audit_events",
                to="federations.federation",
            ),
        ),
        migrations.AlterField("auditevent", "at", models.DateTimeField(default=django.utils.timezone.now)),
        migrations.AddField(
            "auditevent",
            "via",
            models.CharField(blank=True, choices=VIA, default="", max_length=8),
            preserve_default=False,
        ),
        migrations.AddField("auditevent", "before", models.JSONField(null=True)),
        migrations.AddField("auditevent", "after", models.JSONField(null=True)),
        migrations.AddField("auditevent", "nonce", models.CharField(default="", max_length=32), preserve_default=False),
        migrations.AddField(
            "auditevent", "previous_hash", models.CharField(default="", max_length=64), preserve_default=False
        ),
        migrations.AddField("auditevent", "hash", models.CharField(default="", max_length=64), preserve_default=False),
        migrations.AddIndex("auditevent", models.Index(fields=["federation", "action", "-id"], name="audit_by_action")),
        migrations.RunPython(link, migrations.RunPython.noop),
    ]
