"""The Docker API's JSON: what is read from it."""

from __future__ import annotations

import pytest

from minicluster.engine.docker.answers import moment
from minicluster.errors import MiniclusterError

NOON = 1767355200.0  # 2026-01-02T12:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-02T12:00:00.5Z", NOON + 0.5),
        ("2026-01-02T12:00:00.678901234Z", NOON + 0.678901),
        ("2026-01-02T12:00:00.678901234+02:00", NOON + 0.678901 - 7200),
        ("2026-01-02T12:00:00Z", NOON),
        ("2026-01-02T12:00:00+02:00", NOON - 7200),
        ("2026-01-02T12:00:00-05:30", NOON + 19800),
        ("2026-01-02T12:00:00", NOON),
    ],
)
def test_a_time_may_have_a_fraction_and_an_offset(text: str, seconds: float) -> None:
    assert moment(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("text", ["", "now", "2026-13-02T12:00:00Z", "2026-01-02", "2026-01-02T12:00:00.Z"])
def test_what_is_no_time_is_a_clear_error(text: str) -> None:
    with pytest.raises(MiniclusterError, match="has no time"):
        moment(text)
