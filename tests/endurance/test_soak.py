"""A short soak: nothing leaks, and whoever behaves is answered. ``make soak`` runs a long one."""

from __future__ import annotations

import pytest

from tests.endurance.soak import soak
from tests.servers import Server

pytestmark = pytest.mark.once

SEED = 1

GROWTH = 24 * 2**20
"""In so short a run the allocator has not seen all that it ever will, in bytes."""


@pytest.mark.parametrize("server", ["uvicorn", "uvicorn+fast-lane"])
def test_nothing_is_left_of_a_mixed_load(server: Server) -> None:
    outcome = soak(15, SEED, server=server, growth_bytes=GROWTH)
    assert outcome.failures == []
    assert len(outcome.asked) > 8
