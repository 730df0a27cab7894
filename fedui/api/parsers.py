from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.parsers import JSONParser

from fedui.api.problems import RequestTooLarge

MAX_BYTES = 64 * 1024


class SmallJSONParser(JSONParser):
    """JSON of at most `MAX_BYTES`: REST framework's parser has no limit. No more than that is read of a larger body."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise RequestTooLarge(f"The request has more than {MAX_BYTES} bytes.")
        return super().parse(io.BytesIO(body), media_type, parser_context)
