"""What running a command needs to know of the decision to allow it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from paceline.hostexec.sandbox.command import View

__all__ = ["CommandPolicy", "Granted", "GrantedRule"]


class GrantedRule(Protocol):
    """The rule that allowed it."""

    @property
    def id(self) -> str:
        """Its name in the policy."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """Added to the environment."""
        ...

    @property
    def workspace(self) -> bool:
        """The command sees the workspace."""
        ...

    @property
    def effect(self) -> str:
        """`write` lets it change the workspace."""
        ...

    @property
    def view(self) -> View:
        """What of the host it sees."""
        ...

    @property
    def network(self) -> bool:
        """It reaches the network."""
        ...

    @property
    def success(self) -> Collection[int]:
        """Exit codes that are no failure."""
        ...

    @property
    def slow(self) -> bool:
        """It starts with the longer time limit."""
        ...


class Granted(Protocol):
    """An allowed command."""

    @property
    def argv(self) -> tuple[str, ...]:
        """What is run: the program's absolute path first, and the rule's own arguments."""
        ...

    @property
    def given(self) -> tuple[str, ...]:
        """What was asked for."""
        ...

    @property
    def rule(self) -> GrantedRule: ...


class CommandPolicy(Protocol):
    """Decides what may run."""

    @property
    def digest(self) -> str:
        """Names the text of the policy in the audit log."""
        ...

    def split(self, text: str, /) -> tuple[str, ...]:
        """The words of a command line. Raises CommandDeniedError for what only a shell could
        carry out, and InvalidInputError for what is no command line."""
        ...

    def decide(self, argv: Sequence[str], /) -> Granted:
        """The command as it is to be run. Raises CommandDeniedError, or InvalidInputError for
        what cannot be a command."""
        ...
