from django.apps import AppConfig


class KeysConfig(AppConfig):
    name = "fedui.keys"
    label = "keys"
