"""Plotly is served from the installed package, and nothing else of it."""

from __future__ import annotations

import subprocess
import sys

from django.contrib.staticfiles import finders

from fedui.staticfiles import PlotlyFinder, read_at_once


def test_plotly_is_found() -> None:
    path = finders.find("vendor/plotly/plotly.min.js")

    assert path and path.endswith("plotly.min.js")


def test_only_plotly_is_collected() -> None:
    listed = [(path, storage.prefix) for path, storage in PlotlyFinder().list(None)]  # type: ignore[attr-defined]

    assert listed == [("plotly.min.js", "vendor/plotly")]
    assert PlotlyFinder().find("vendor/plotly/widgetbundle.js") is None


def test_the_package_is_not_imported() -> None:
    script = "import sys, fedui.staticfiles as s; s.PlotlyFinder(); sys.exit('plotly' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_browsers_are_told_to_read_plotly_at_once() -> None:
    [(path, storage)] = PlotlyFinder().list(None)
    with storage.open(path) as file:
        served = file.read()

    assert b"self : this, (function () {" in served, "Plotly is made otherwise than before: look at `read_at_once`."
    assert served.endswith(b"}).bind(this)));")
    assert read_at_once(b"(() => 1)();") == b"(() => 1)();"
