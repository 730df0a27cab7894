import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clients", "0001_initial"),
        ("runs", "0003_participation_staleness"),
    ]

    operations = [
        migrations.AddField(
            model_name="participation",
            name="replaces",
            field=models.ForeignKey(
                help_text="Who had dropped out before, and in whose place this client was asked.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="clients.client",
            ),
        ),
        migrations.AddField(
            model_name="participation",
            name="steps_done",
            field=models.PositiveBigIntegerField(null=True, help_text="Steps of its training, where its app tells."),
        ),
        migrations.AddField(
            model_name="participation",
            name="steps_planned",
            field=models.PositiveBigIntegerField(null=True, help_text="More than were done: it was ended early."),
        ),
    ]
