from django.db import migrations

from fedui.audit import guards


class Migration(migrations.Migration):
    """By itself, after the entries have been put into the chain: PostgreSQL refuses triggers on tables with pending ones."""

    dependencies = [("audit", "0002_chain")]

    operations = [
        migrations.RunPython(
            lambda apps, editor: guards.install(editor.connection),
            lambda apps, editor: guards.remove(editor.connection),
        )
    ]
