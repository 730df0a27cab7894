"""Federations that were there before get the rules that new ones have."""

from typing import Any

from django.db import migrations

RULES: tuple[tuple[str, str, dict[str, int], int], ...] = (
    ("Client is offline", "client_offline", {"minutes": 15}, 1),
    ("Run is stalled", "run_stalled", {"minutes": 10}, 1),
    ("Run has failed", "run_failed", {}, 2),
    ("Round has missed its quorum", "quorum_missed", {"rounds": 1}, 1),
    ("Update is suspicious", "update_flagged", {"rounds": 3}, 1),
    ("Certificate is about to expire", "certificate_expiring", {"hours": 4}, 1),
    ("Disk is nearly full", "disk_low", {"percent": 10}, 1),
)


def add_rules(apps: Any, schema_editor: Any) -> None:
    rule = apps.get_model("alerts", "AlertRule")
    for federation in apps.get_model("federations", "Federation").objects.all():
        rule.objects.bulk_create(
            rule(federation=federation, name=name, kind=kind, settings=settings, severity=severity)
            for name, kind, settings, severity in RULES
        )


class Migration(migrations.Migration):
    dependencies = [("alerts", "0001_initial")]

    operations = [migrations.RunPython(add_rules, migrations.RunPython.noop)]
