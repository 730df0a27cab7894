from django.apps import AppConfig
from django.core.checks import Tags, register


class FedUIConfig(AppConfig):
    name = "fedui"

    def ready(self) -> None:
        import fedui.celery  # noqa: F401  # Tasks called from here go to our broker only once the Celery app exists.
        from fedui.checks import check_exposure

        register(check_exposure, Tags.security)
