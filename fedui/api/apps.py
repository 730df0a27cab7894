from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "fedui.api"
    label = "api"

    def ready(self) -> None:
        from fedui.api import schema_extensions  # noqa: F401  # found by being imported
