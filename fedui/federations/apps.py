from django.apps import AppConfig


class FederationsConfig(AppConfig):
    name = "fedui.federations"
