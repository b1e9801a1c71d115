"""Other people's senders, unmodified: the collector is killed with SIGKILL while its store is away, and the account is exact.

Each sends two thousand numbered events; the table of senders, and what their protocols promise, is `drills.matrix.senders`. `make matrix` sends a
hundred thousand of each, with more kills and a longer outage, and those whose programs take minutes to build.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from drills.matrix.away import EmbeddedStore
from drills.matrix.programs import Programs
from drills.matrix.running import Outcome, run
from drills.matrix.senders import senders
from drills.matrix.table import SHORT, row

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

IN_CI = [name for name, sender in senders(Programs(Path())).items() if sender.in_ci]


AT_ONCE = 4
"""A run is mostly waiting: for the outage to end, and for senders to come again."""


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """The runs of the senders that are asked for, by name, under way."""
    wanted = [name for name in IN_CI if any(item.name.endswith(f"[{name}]") for item in request.session.items)]
    folder = tmp_path_factory.mktemp("matrix")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        table = senders(programs)
        runs = {name: pool.submit(run, table[name], SHORT, EmbeddedStore(), folder / name) for name in wanted}
        yield runs
        for one in runs.values():
            one.cancel()


@pytest.mark.parametrize("name", IN_CI)
def test_what_is_acknowledged_is_stored_once(name: str, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[name].result()
    print(f"\n{row(outcome)}")  # noqa: T201 - the figures are what the test is run for
    assert outcome.broken(kills=1) == []
