"""The file of sessions: whose they are, where they go on, and what of them is kept."""

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paceline.codec import decode, encode
from paceline.errors import Category, StorageError, UsageError
from paceline.history.sessions import SessionStore
from paceline.redaction import Redactor, Secret
from paceline.testing.virtual_time import VirtualClock

ODD = ["a/b/../c", "x" * 200, "'; DROP TABLE sessions; --", "ä 名 %", "null"]


def entry(text: str) -> bytes:
    return encode({"text": text})


Make = Callable[..., SessionStore]


@pytest.fixture
def clock() -> VirtualClock:
    """That of all stores."""
    return VirtualClock()


@pytest.fixture
async def make(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Make]:
    """Stores over one file, as several runtimes would have them."""
    made: list[SessionStore] = []

    def store(redactor: Redactor | None = None) -> SessionStore:
        made.append(SessionStore(tmp_path / "s.db", clock=clock, redactor=redactor))
        return made[-1]

    yield store
    for one in made:
        one.close()


async def said(store: SessionStore, session_id: str, *texts: str, user: str | None = None) -> None:
    """A session in which this was said."""
    await store.open(session_id, user=user, title=texts[0])
    for text in texts:
        await store.append(session_id, entry(text))


@pytest.mark.parametrize("session_id", ODD)
async def test_what_was_said_is_there_in_its_order(make: Make, session_id: str) -> None:
    """The entries of a session are read in the order in which they were added, by another store too,
    and beside those of others, whatever its id (S2-42)."""
    store = make()
    await asyncio.gather(said(store, session_id, "a", "b", "c"), said(store, "other", "x", "y"))
    for reader in (store, make()):
        assert await reader.load(session_id) == [entry("a"), entry("b"), entry("c")]
    assert await store.load("nothing of this id") == []


async def test_sessions_are_listed_by_their_last_use(make: Make, clock: VirtualClock) -> None:
    """The list has each session with its user, the beginning of its first message and how long it is,
    those of late first, and of one user if asked for (S2-42)."""
    store = make()
    await said(store, "old", "Where is\x00 " + "it" * 90, user="ada")
    clock.advance(1)
    await said(store, "new", "Hello", "again", user="bob")
    clock.advance(1)
    await store.append("old", entry("later"))
    old, new = await store.listed()
    assert [(one.id, one.user, one.entries) for one in (old, new)] == [
        ("old", "ada", 2),
        ("new", "bob", 2),
    ]
    assert old.title.startswith("Where is")
    assert len(old.title) == 80
    assert [one.id for one in await store.listed(user="bob")] == ["new"]
    assert [one.id for one in await store.listed(limit=1)] == ["old"]


async def test_secrets_are_masked(make: Make, tmp_path: Path) -> None:
    """A known secret is neither in the entries nor in the title, nor anywhere in the file (S2-42)."""
    secret = "sk-1234567890abcdefghij"
    store = make(Redactor([Secret(secret)]))
    await said(store, "s1", f"use {secret} now")
    (kept,) = await store.load("s1")
    assert secret not in str(decode(kept))
    assert secret not in (await store.listed())[0].title
    store.close()
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())


async def test_files_are_for_their_owner(make: Make, tmp_path: Path) -> None:
    """All files of the store can be read by their owner only (S2-42)."""
    await said(make(), "s1", "a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) >= {"s.db", "s.locks"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("user", [None, "bob", "", "ADA"])
async def test_a_session_of_another_user_is_refused(make: Make, user: str | None) -> None:
    """Nobody but its user goes on with a session, or begins one of its id, and the refusal leaves it
    as it was, and free for its user (S2-42, S2-38)."""
    store = make()
    await said(store, "s1", "mine", user="ada")
    store.release("s1")
    with pytest.raises(UsageError) as caught:
        await store.open("s1", user=user, resume=True)
    assert caught.value.category is Category.NOT_FOUND
    with pytest.raises(UsageError):
        await store.open("s1", user=user)
    with pytest.raises(UsageError, match="not open"):
        await store.append("s1", entry("theirs"))
    await make().open("s1", user="ada", resume=True)
    assert await store.load("s1") == [entry("mine")]


async def test_a_session_of_another_tenant_is_refused(make: Make) -> None:
    """A user of the same name elsewhere is another one (S2-42, S2-38)."""
    store = make()
    await store.open("s1", user="ada", tenant="acme")
    store.release("s1")
    with pytest.raises(UsageError):
        await store.open("s1", user="ada", tenant="other", resume=True)


async def test_what_is_not_there_cannot_be_resumed(make: Make) -> None:
    """Resuming a session that there is not is an error, and leaves none behind (S2-42)."""
    store = make()
    with pytest.raises(UsageError, match="no session"):
        await store.open("s1", resume=True)
    assert await store.listed() == []


async def test_a_new_session_takes_no_other_ones_place(make: Make) -> None:
    """A session is not begun under the id of one in which something was said; one in which nothing was
    may be, as its process may have died there (S2-42)."""
    store = make()
    await store.open("empty", user="ada")
    await said(store, "s1", "a", user="ada")
    for one in ("empty", "s1"):
        store.release(one)
    with pytest.raises(UsageError):
        await store.open("empty", user="bob")
    await store.open("empty", user="ada")
    with pytest.raises(UsageError, match="already"):
        await store.open("s1", user="ada")
    await make().open("s1", user="ada", resume=True)  # the refusal did not keep it


async def test_a_session_goes_on_in_one_place(make: Make) -> None:
    """What is open in one store cannot be opened in another, even of the same process, until it is
    released or that store is closed; a third one that is closed does not let go of it (S2-42)."""
    first, second, third = make(), make(), make()
    await said(first, "s1", "a")
    await said(third, "s2", "a")
    third.close()
    with pytest.raises(UsageError) as caught:
        await second.open("s1", resume=True)
    assert caught.value.category is Category.UNAVAILABLE
    first.release("s1")
    first.release("s1")
    await second.open("s1", resume=True)
    with pytest.raises(UsageError):
        await first.open("s1", resume=True)
    second.close()
    await first.open("s1", resume=True)


async def test_who_was_cancelled_while_opening_asks_again(make: Make) -> None:
    """Who was cancelled at any moment of opening has nothing open, and can open it again (S2-42)."""
    store = make()
    for session_id in ("s1", "s2", "s3"):
        await said(store, session_id, "a")
        store.release(session_id)
    for session_id, turns in (("s1", 0), ("s2", 1), ("s3", 3)):
        opening = asyncio.create_task(store.open(session_id, resume=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await store.open(session_id, resume=True)
        await store.append(session_id, entry("b"))
        assert await store.load(session_id) == [entry("a"), entry("b")]


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancelled_opening_holds_nothing(make: Make, late: bool) -> None:
    """An opening that was cancelled and released leaves no claim behind, though its thread ends later,
    and another user gets neither that session nor its place (S2-38, S2-42)."""
    store, other = make(), make()
    await said(store, "s1", "secret", user="ada")
    store.release("s1")
    take_up = store._take_up
    begun, ready, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(claim: Any) -> None:
        begun.set()
        if late:
            ready.wait(10)
        take_up(claim)
        ended.set()
        ready.wait(10)

    store._take_up = slow  # type: ignore[method-assign]
    opening = asyncio.create_task(store.open("s1", user="ada", resume=True))
    await asyncio.to_thread((begun if late else ended).wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    store.release("s1")
    ready.set()
    await asyncio.to_thread(ended.wait, 10)
    store._take_up = take_up  # type: ignore[method-assign]
    assert store._open == {}
    with pytest.raises(UsageError, match="of this user"):
        await store.open("s1", user="eve", resume=True)
    await other.open("s1", user="ada", resume=True)


@pytest.mark.parametrize("resume", [False, True])
async def test_what_is_open_is_its_owners(make: Make, resume: bool) -> None:
    """A session that is open in this very store is opened by nobody else, and by its owner once
    (S2-38, S2-42)."""
    store = make()
    await said(store, "s1", "secret", user="ada")
    with pytest.raises(UsageError, match="of this user" if resume else "already"):
        await store.open("s1", user="eve", resume=resume)
    with pytest.raises(UsageError, match="open elsewhere"):
        await store.open("s1", user="ada", resume=resume)
    await store.append("s1", entry("b"))


async def test_what_is_too_old_is_removed(tmp_path: Path) -> None:
    """Sessions in which nothing happened for long are removed with all they have, and no others: not
    those that are open, here or elsewhere (S2-42)."""
    clock = VirtualClock()
    here, there = [SessionStore(tmp_path / "s.db", clock=clock) for _ in range(2)]
    for name in ("old", "open here", "used"):
        await said(here, name, "a")
    await said(there, "open there", "a")
    for name in ("old", "used"):
        here.release(name)
    clock.advance(100)
    await here.open("used", resume=True)
    await here.append("used", entry("b"))
    here.release("used")
    assert here.prune(99) == 1
    assert {one.id for one in await here.listed()} == {"open here", "open there", "used"}
    await here.append("open here", entry("b"))
    await there.append("open there", entry("b"))
    here.close()
    there.close()
    with closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (6,)


async def test_what_cannot_be_written_is_an_error(make: Make, tmp_path: Path) -> None:
    """An entry that is not in the file is an error that says what to do, at once and each time; later
    ones are written again when that is possible (S2-42)."""
    store = make()
    await said(store, "s1", "a")
    with closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
        db.execute("ALTER TABLE entries RENAME TO gone")
    for text in ("b", "c"):
        with pytest.raises(StorageError, match="cannot be kept") as caught:
            await store.append("s1", entry(text))
        assert caught.value.next_step
    with closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
        db.execute("ALTER TABLE gone RENAME TO entries")
    await store.append("s1", entry("d"))
    assert await store.load("s1") == [entry("a"), entry("d")]


async def test_an_entry_that_is_none_is_an_error(make: Make) -> None:
    """Bytes that are no entry are refused, and those beside them may be tried again (S2-42)."""
    store = make()
    await said(store, "s1", "a")
    with pytest.raises(StorageError):
        await store.append("s1", b"\xff")
    await store.append("s1", entry("b"))
    assert await store.load("s1") == [entry("a"), entry("b")]


async def test_a_closed_store_keeps_nothing(make: Make) -> None:
    """After closing an entry is an error, never lost in silence; letting go is none (S2-42)."""
    store = make()
    await said(store, "s1", "a")
    store.close()
    store.close()
    with pytest.raises(UsageError, match="not open"):
        await store.append("s1", entry("b"))
    with pytest.raises(StorageError):
        await store.open("s2")
    store.release("s1")


async def test_a_place_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    """A file that cannot be made is an error that says what to do (S2-42)."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        SessionStore(tmp_path / "file" / "s.db", clock=VirtualClock())
    assert caught.value.next_step


async def test_what_is_noted_is_written_in_its_order(make: Make) -> None:
    """An entry that is only noted stands before those that are appended after it, and is written by
    itself if none is (S2-42, S2-56)."""
    store = make()
    await store.open("s")
    store.note("s", entry("a"))
    store.note("s", entry("b"))
    await store.append("s", entry("c"))
    assert await make().load("s") == [entry("a"), entry("b"), entry("c")]
    store.note("s", entry("d"))
    store.close()
    assert (await make().load("s"))[-1] == entry("d")


async def test_what_was_noted_and_lost_is_told_later(make: Make) -> None:
    """A noted entry that cannot be written is an error of the next one that is waited for, once, even
    where who waited first was cancelled (S2-42, S2-56)."""
    store = make()
    await store.open("s")
    store.note("s", b"no entry")
    store._writer.flush()
    cut_off = asyncio.ensure_future(store.append("s", entry("a")))
    await asyncio.sleep(0)
    cut_off.cancel()
    await asyncio.wait((cut_off,))
    with pytest.raises(StorageError):
        await store.append("s", entry("a"))
    await store.append("s", entry("a"))
    with pytest.raises(UsageError):
        store.note("t", entry("a"))


async def test_what_was_lost_is_told_to_all_who_write_beside_each_other(make: Make) -> None:
    """Of two entries that are waited for at once none is taken as written where what was noted before
    them is not there: what they announce must not be done (S2-56)."""
    store = make()
    await store.open("s")
    store.note("s", b"no entry")
    both = [store.append("s", entry(name)) for name in ("a", "b")]
    told = await asyncio.gather(*both, return_exceptions=True)
    assert [type(one) for one in told] == [StorageError, StorageError]
    await store.append("s", entry("c"))
