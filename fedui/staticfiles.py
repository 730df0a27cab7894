"""Static files that come with installed packages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.checks import CheckMessage, Error
from django.core.files.storage import FileSystemStorage

_FILE = "plotly.min.js"


class PlotlyFinder(BaseFinder):
    """`vendor/plotly/plotly.min.js`, from the plotly package.

    The package is found without importing it, which would cost every process memory; nothing else in it is published.
    """

    prefix = "vendor/plotly"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        spec = find_spec("plotly")
        locations = (spec.submodule_search_locations or []) if spec else []
        self.folder = Path(next(iter(locations), "")) / "package_data"

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        if (self.folder / _FILE).is_file():
            return []
        return [Error("The plotly package is not installed, or has no plotly.min.js.", id="fedui.E001")]

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        found = [str(self.folder / _FILE)] if path == f"{self.prefix}/{_FILE}" else []
        return found if find_all else next(iter(found), None)

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, FileSystemStorage]]:
        storage = FileSystemStorage(location=self.folder)
        storage.prefix = self.prefix  # type: ignore[attr-defined]  # How a finder tells collectstatic where files go.
        yield _FILE, storage
