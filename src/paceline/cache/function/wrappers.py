"""What stands in front of a cached function: the shortest way to a hit that Python allows.

A hit is two look-ups in dictionaries and cells, one look at the clock, a count and a note of the
use. Three things keep it short. A wrapper has the parameters of its function, by name and with
their defaults, so that the interpreter itself binds the arguments, whichever way they are
written: it is one of the templates below with its parameters renamed. An `int` or `str` is its
own key, in a table of the function's own or, of those, the instance's or the scope's. And
whatever is not a fresh, unchangeable value under such a key goes the slow way, `answer`, which
finds the same entry by the general rules.
"""

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from paceline.cache.entry import Entry
from paceline.cache.function.tables import Entries
from paceline.cache.snapshot import Form

__all__ = ["Shape", "Shortcut", "wrap"]

_SHARED = Form.SHARED

Find = Callable[[Any], Entry | None]
Function = Callable[..., Any]


class Shape(NamedTuple):
    """What kind of function it is. `names` are those of its parameters, if these are fixed in
    number and alone are the key."""

    is_async: bool
    is_method: bool
    is_scoped: bool
    names: tuple[str, ...] | None


class Shortcut(NamedTuple):
    """What a wrapper needs to find a hit by itself.

    `find` looks up in the function's table. `kept` is what is in the tables of a method's
    instances, by their ids, or in those of the scopes; `scope` says which one it is.
    """

    find: Find
    kept: dict[Any, Entries]
    scope: Callable[[], Any]
    now: Callable[[], int]
    touch: Callable[[Entry], object]
    answer: Function


def wrap(function: Function, shape: Shape, way: Shortcut) -> Any:
    """A function that looks like this one and is answered by `way`."""
    names, template = shape.names, _template(shape)(way)
    if names is None or template.__code__.co_argcount != len(names):
        return functools.wraps(function)(template)
    code, own = template.__code__, function.__code__
    template.__code__ = code.replace(
        co_name=own.co_name,
        co_qualname=own.co_qualname,
        co_posonlyargcount=own.co_posonlyargcount,
        co_varnames=(*names, *code.co_varnames[len(names) :]),
    )
    template.__defaults__ = function.__defaults__
    return functools.wraps(function)(template)


def _any(way: Shortcut) -> Any:
    answer = way.answer

    def call(*args: Any, **kwargs: Any) -> Any:
        return answer(*args, **kwargs)

    return call


def _none(way: Shortcut) -> Any:
    find, _, _, now, touch, answer = way

    def call() -> Any:
        entry = find(())
        if entry is not None and entry.form is _SHARED and now() < entry.fresh_ns:
            entry.uses += 1
            touch(entry)
            return entry.value
        return answer()

    return call


def _one(way: Shortcut) -> Any:
    find, _, _, now, touch, answer = way

    def call(x: Any) -> Any:
        if type(x) is str or type(x) is int:
            entry = find(x)
            if entry is not None and entry.form is _SHARED and now() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value
        return answer(x)

    return call


def _two(way: Shortcut) -> Any:
    find, _, _, now, touch, answer = way

    def call(x: Any, y: Any) -> Any:
        if (type(x) is str or type(x) is int) and (type(y) is str or type(y) is int):
            entry = find((x, y))
            if entry is not None and entry.form is _SHARED and now() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value
        return answer(x, y)

    return call


def _method(way: Shortcut) -> Any:
    _, kept, _, now, touch, answer = way

    def call(me: Any) -> Any:
        try:
            entry = kept[id(me)][()]
        except KeyError:
            pass
        else:
            if entry.form is _SHARED and now() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value
        return answer(me)

    return call


def _method_one(way: Shortcut) -> Any:
    _, kept, _, now, touch, answer = way

    def call(me: Any, x: Any) -> Any:
        if type(x) is str or type(x) is int:
            try:
                entry = kept[id(me)][x]
            except KeyError:
                pass
            else:
                if entry.form is _SHARED and now() < entry.fresh_ns:
                    entry.uses += 1
                    touch(entry)
                    return entry.value
        return answer(me, x)

    return call


def _scoped_one(way: Shortcut) -> Any:
    _, kept, scope, now, touch, answer = way

    def call(x: Any) -> Any:
        who = scope()
        if (type(who) is str or type(who) is int) and (type(x) is str or type(x) is int):
            try:
                entry = kept[who][x]
            except KeyError:
                pass
            else:
                if entry.form is _SHARED and now() < entry.fresh_ns:
                    entry.uses += 1
                    touch(entry)
                    return entry.value
        return answer(x)

    return call


def _async_any(way: Shortcut) -> Any:
    answer = way.answer

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await answer(*args, **kwargs)

    return call


def _async_none(way: Shortcut) -> Any:
    find, _, _, now, touch, answer = way

    async def call() -> Any:
        entry = find(())
        if entry is not None and entry.form is _SHARED and now() < entry.fresh_ns:
            entry.uses += 1
            touch(entry)
            return entry.value
        return await answer()

    return call


def _async_one(way: Shortcut) -> Any:
    find, _, _, now, touch, answer = way

    async def call(x: Any) -> Any:
        if type(x) is str or type(x) is int:
            entry = find(x)
            if entry is not None and entry.form is _SHARED and now() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value
        return await answer(x)

    return call


def _async_two(way: Shortcut) -> Any:
    find, _, _, now, touch, answer = way

    async def call(x: Any, y: Any) -> Any:
        if (type(x) is str or type(x) is int) and (type(y) is str or type(y) is int):
            entry = find((x, y))
            if entry is not None and entry.form is _SHARED and now() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value
        return await answer(x, y)

    return call


def _async_method(way: Shortcut) -> Any:
    _, kept, _, now, touch, answer = way

    async def call(me: Any) -> Any:
        try:
            entry = kept[id(me)][()]
        except KeyError:
            pass
        else:
            if entry.form is _SHARED and now() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value
        return await answer(me)

    return call


def _async_method_one(way: Shortcut) -> Any:
    _, kept, _, now, touch, answer = way

    async def call(me: Any, x: Any) -> Any:
        if type(x) is str or type(x) is int:
            try:
                entry = kept[id(me)][x]
            except KeyError:
                pass
            else:
                if entry.form is _SHARED and now() < entry.fresh_ns:
                    entry.uses += 1
                    touch(entry)
                    return entry.value
        return await answer(me, x)

    return call


def _async_scoped_one(way: Shortcut) -> Any:
    _, kept, scope, now, touch, answer = way

    async def call(x: Any) -> Any:
        who = scope()
        if (type(who) is str or type(who) is int) and (type(x) is str or type(x) is int):
            try:
                entry = kept[who][x]
            except KeyError:
                pass
            else:
                if entry.form is _SHARED and now() < entry.fresh_ns:
                    entry.uses += 1
                    touch(entry)
                    return entry.value
        return await answer(x)

    return call


def _template(shape: Shape) -> Callable[[Shortcut], Any]:
    count = -1 if shape.names is None else len(shape.names)
    sync, other = _TEMPLATES.get((shape.is_method, shape.is_scoped, count), (_any, _async_any))
    return other if shape.is_async else sync


# By whether it is a method, whether it has a scope, and how many parameters.
_TEMPLATES: Final = {
    (False, False, 0): (_none, _async_none),
    (False, False, 1): (_one, _async_one),
    (False, False, 2): (_two, _async_two),
    (True, False, 1): (_method, _async_method),
    (True, False, 2): (_method_one, _async_method_one),
    (False, True, 1): (_scoped_one, _async_scoped_one),
}
