"""Sessions made up for tests, and a model of arguments that only knows what it saw last."""

import random
from collections.abc import Collection, Mapping

from paceline.predict.context import Context
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.predictor import PerformancePredictor
from paceline.testing.virtual_time import VirtualClock

__all__ = ["LastArguments", "call", "free_text", "orders", "predictor", "step"]


class LastArguments:
    """Proposes an argument that the session had under the same name, else the value seen last."""

    year: int | None = None

    def __init__(self, *, patterns: int = 0) -> None:
        self.seen: dict[str, dict[str, object]] = {}

    def propose(self, name: str, context: Context, **limits: float):
        if name not in self.seen:
            return []
        before = {key: value for each in context.calls for key, value in each.arguments.items()}
        found = {key: before.get(key, value) for key, value in self.seen[name].items()}
        return [] if None in found.values() else [(found, 0.9)]

    def reason(self, name: str, context: Context, arguments: Mapping[str, object]) -> str:
        return "what it was last"

    def observe(self, call: Called, context: Context, private: Collection[str] = ()) -> None:
        given = call.arguments.items()
        self.seen[call.name] = {key: None if key in private else value for key, value in given}

    def save(self) -> object:
        return self.seen

    def load(self, saved: object) -> None:
        assert isinstance(saved, dict)
        self.seen = dict(saved)


def call(name: str, result: object = None, **arguments: object) -> Called:
    return Called(name, arguments, result)


def step(name: str, result: object = None, **arguments: object) -> Step:
    return Step((Called(name, arguments, result),))


def predictor(clock: VirtualClock | None = None, **options) -> PerformancePredictor:
    return PerformancePredictor(
        clock=clock or VirtualClock(), arguments=options.pop("arguments", LastArguments), **options
    )


def orders(count: int, *, seed: int = 1, scope: str = "") -> list[Trajectory]:
    """Who asks for an order has it looked up and tracked; who wants money back is refunded."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        order = rng.randint(1000, 9999)
        wants = rng.choice(("Where is my parcel", "I want my money back for"))
        then = "track_parcel" if "parcel" in wants else "refund_money"
        found.append(
            Trajectory(
                str(number),
                (
                    Said(f"{wants} order {order}?"),
                    step("get_order", {"order_id": order, "state": "sent"}, order_id=order),
                    step(then, "done", order_id=order),
                    Said("That is done.", by_user=False),
                    Said("Thanks!"),
                    Said("Goodbye.", by_user=False),
                ),
                task=str(number),
                scope=scope,
            )
        )
    return found


def free_text(count: int, *, seed: int = 1) -> list[Trajectory]:
    """Tools of one's own words: which is called can be told a little, with what cannot."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnoprstuvwz"

    def text(words: int) -> str:
        return " ".join("".join(rng.choices(letters, k=rng.randint(3, 8))) for _ in range(words))

    def called(name: str) -> Step:
        return step(name, text(9), query=text(rng.randint(2, 9)))

    found = []
    for number in range(count):
        tools = rng.choices(("search_web", "write_note", "ask_expert"), k=rng.randint(1, 5))
        events: list[Event] = [Said(text(12)), *map(called, tools), Said(text(9), by_user=False)]
        found.append(Trajectory(str(number), tuple(events), task=str(number)))
    return found
