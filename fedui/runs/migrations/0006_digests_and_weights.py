import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0005_lifecycle"),
    ]

    operations = [
        migrations.CreateModel(
            name="RoundDigest",
            fields=[
                (
                    "round",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="digest",
                        serialize=False,
                        to="runs.round",
                    ),
                ),
                ("expected", models.PositiveIntegerField()),
                ("received", models.PositiveIntegerField()),
                ("bytes_up", models.PositiveBigIntegerField()),
                ("bytes_down", models.PositiveBigIntegerField()),
                (
                    "spread",
                    models.JSONField(
                        help_text="By measure, its quantiles over the updates, and its median absolute deviation."
                    ),
                ),
                (
                    "flagged",
                    models.JSONField(
                        help_text="Ids of the clients whose updates were unlike the others, the farthest first."
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="run",
            name="opened_by",
            field=models.PositiveIntegerField(default=0, help_text="Fencing number of the lease that read them."),
        ),
        migrations.AddField(
            model_name="run",
            name="opened_round",
            field=models.PositiveIntegerField(
                default=0,
                help_text="For which the weights of clients were read last: an order that changes them counts later.",
            ),
        ),
        migrations.AlterField(
            model_name="runcommand",
            name="kind",
            field=models.CharField(
                choices=[
                    ("start", "Started at once"),
                    ("schedule", "Scheduled"),
                    ("prioritise", "Priority changed"),
                    ("pause", "Paused"),
                    ("resume", "Resumed"),
                    ("stop", "Stopped"),
                    ("cancel", "Cancelled"),
                    ("extend", "Extended"),
                    ("clone", "Cloned"),
                    ("fork", "Forked"),
                    ("weigh", "Weight of a client changed"),
                ],
                max_length=16,
            ),
        ),
    ]
