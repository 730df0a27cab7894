from django.apps import AppConfig


class BookmarksConfig(AppConfig):
    name = "fedui.bookmarks"
