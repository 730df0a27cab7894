from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.backends.signals import connection_created


class FedUIConfig(AppConfig):
    name = "fedui"

    def ready(self) -> None:
        import fedui.celery  # noqa: F401  # Tasks called from here go to our broker only once the Celery app exists.
        from fedui.checks import check_exposure
        from fedui.database import limit_idle_transactions

        register(check_exposure, Tags.security)
        connection_created.connect(limit_idle_transactions, dispatch_uid="fedui.database")
