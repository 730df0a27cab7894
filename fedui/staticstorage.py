"""Where static files are served from: by names that change with their contents, so that browsers keep them for good."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage as Hashed


class ModuleStorage(Hashed):  # type: ignore[misc]  # the package has no types
    """FedUI's modules import one another by these names too: what a page preloads is what its modules then ask for.

    Those of other packages are left alone: a comment in one of them reads like an import.
    """

    patterns = (
        *Hashed.patterns,
        ("js/*.js", Hashed._js_module_import_aggregation_patterns[1]),  # noqa: SLF001  # the switch for it takes all files
    )
