"""What agents report, in rows of the database."""

from __future__ import annotations

from collections.abc import Mapping

from protos.convert import ScalarValue


def scalars_to_json(values: Mapping[str, ScalarValue]) -> dict[str, bool | int | float | str]:
    """Bytes in hexadecimal. Numbers are finite: `scalars_from_proto` lets no others in."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}
