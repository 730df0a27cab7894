from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AuditConfig(AppConfig):
    name = "fedui.audit"

    def ready(self) -> None:
        from fedui.audit.guards import install_after

        post_migrate.connect(install_after, dispatch_uid="fedui.audit.guards")
