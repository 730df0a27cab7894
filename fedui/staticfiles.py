"""Static files that come with installed packages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.checks import CheckMessage, Error
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage

_FILE = "plotly.min.js"
_FACTORY = (b"self : this, () => {", b"}));")
_CALLED_AT_ONCE = (b"self : this, (function () {", b"}).bind(this)));")
"""How the function that holds all of Plotly begins and ends, as it comes and as it is served."""


def read_at_once(script: bytes) -> bytes:
    """Plotly with its one large function in parentheses, by which browsers know that it is called at once.

    As it comes, browsers skip over its 4.8 MB beside the page, and then read them on the page's own thread, which stands still
    meanwhile. A release that is made otherwise stays as it is.
    """
    (begins, ends), (begins_at_once, ends_at_once) = _FACTORY, _CALLED_AT_ONCE
    script = script.rstrip()
    if script.count(begins) != 1 or not script.endswith(ends):
        return script
    return script.removesuffix(ends).replace(begins, begins_at_once) + ends_at_once


class _PlotlyStorage(FileSystemStorage):
    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        with Path(self.path(name)).open("rb") as file:
            return ContentFile(read_at_once(file.read()), name)


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
        storage = _PlotlyStorage(location=self.folder)
        storage.prefix = self.prefix  # type: ignore[attr-defined]  # How a finder tells collectstatic where files go.
        yield _FILE, storage
