"""What a test cannot run without: skipped at a developer's desk, a failure in CI."""

from __future__ import annotations

import os

import pytest


def need(condition: object, reason: str) -> None:
    """Goes on if `condition` is true; else skips the test, or fails it when the environment says `CI=true`.

    A test that skips in silence on the one machine that was told to run it proves nothing, so CI must bring what the
    test needs. `reason` says what is missing and how to get it.
    """
    __tracebackhide__ = True
    if condition:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI must bring what its tests need: {reason}", pytrace=False)
    pytest.skip(reason)
