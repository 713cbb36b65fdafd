"""What answers: every kind of model, against the suite that all have to pass."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from paceline.testing.model_suite import CHECKS, Check, Stage
from tests.model_stages import STAGES, ModelStage


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
async def test_every_model_keeps_its_promises(
    stage: Callable[[], AbstractAsyncContextManager[ModelStage]], check: Check
) -> None:
    """A scripted model, a recorded one and its replay, a server of chat completions and models of
    pydantic-ai all pass each check of the published suite: parts, tool uses, conversations, options,
    typed errors, cancellation, secrets (S2-41, V-12, V-13)."""
    async with stage() as model:
        checked: Stage = model
        await check(checked)
