"""What tools find in the code and in the settings of a server that people reach."""

from __future__ import annotations

import pytest

from tests.security.checks import Finding, bandit, deploy


@pytest.mark.parametrize("check", [bandit, deploy])
def test_nothing_is_found_that_has_no_reason(check: object) -> None:
    finding = check()  # type: ignore[operator]
    assert isinstance(finding, Finding)
    assert finding.faults == []
