"""A little of `make api-fuzz`: what schemathesis finds in the API as it runs within half a minute."""

from __future__ import annotations

import pytest

from tests.security.fuzz import fuzz, server


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_the_api_does_what_its_schema_says() -> None:
    with server() as (address, (owner, stranger)):
        for caller, key in (("owner", owner), ("stranger", stranger)):
            outcome = fuzz(address, caller, key, cases=150, seconds=15, seed=7)
            assert not outcome.failures
            assert outcome.cases >= 50  # a busy machine does fewer
            assert outcome.by_status["5xx"] == 0
