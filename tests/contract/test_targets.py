"""What stands behind an instance: every kind of target, against the suite that all have to pass."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from paceline.testing.target_suite import CHECKS, Check, Stage
from tests.far_sides import STAGES, FarSide


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
async def test_every_target_keeps_its_promises(
    stage: Callable[[], AbstractAsyncContextManager[FarSide]], check: Check
) -> None:
    """A function, a process, an agent and a model behind HTTP all pass each check of the published
    suite: values, typed errors, deadlines, cancellation, concurrency, probes, closing, secrets.
    (S0-68, S0-79, S1-23, K-04)"""
    async with stage() as far_side:
        checked: Stage = far_side
        await check(checked)
