from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from fedui.api.problems import RequestTooLarge

MAX_BYTES = 64 * 1024


class SmallJSONParser(JSONParser):
    """JSON of at most `max_bytes`: REST framework's parser has no limit. No more than that is read of a larger body.

    Texts that no database takes (NUL, half of a surrogate pair) are refused here, for all.
    """

    max_bytes = MAX_BYTES

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            raise RequestTooLarge(f"The request has more than {self.max_bytes} bytes.")
        try:
            data = super().parse(io.BytesIO(body), media_type, parser_context)
            text = json.dumps(data, ensure_ascii=False)
            text.encode()
        except RecursionError as error:
            raise ParseError("The request is nested too deeply.") from error
        except UnicodeEncodeError as error:
            raise ParseError("The request has half of a surrogate pair in a text.") from error
        if "\\u0000" in text.replace("\\\\", ""):
            raise ParseError("The request has the character NUL in a text.")
        return data


class LargerJSONParser(SmallJSONParser):
    """For what people write at length: a strategy."""

    max_bytes = 4 * MAX_BYTES
