"""What agents report, in rows of the database."""

from __future__ import annotations

import math
from collections.abc import Mapping

from protos.convert import ScalarValue


def scalars_to_json(values: Mapping[str, ScalarValue]) -> dict[str, bool | int | float | str]:
    """As JSON can hold them: bytes in hexadecimal, and without NaN and infinities."""
    return {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in values.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
