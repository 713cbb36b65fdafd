"""An agent with a mistake in it: the others go on, and the mistake is shown."""

import a_module_that_nobody_has

DESCRIPTION = "Never loads."


def run(query: str, **_context: object) -> str:
    """Never runs."""
    return a_module_that_nobody_has.answer(query)
