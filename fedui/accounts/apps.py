from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "fedui.accounts"

    def ready(self) -> None:
        from fedui.accounts import trail  # noqa: F401  # its receivers
