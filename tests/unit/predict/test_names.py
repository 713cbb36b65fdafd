"""Names of tools, their numbers and words."""

from paceline.predict.names import COMMON, ToolNames


def test_the_names_used_longest_ago_are_forgotten() -> None:
    """When there are too many names those used last stay, by whatever use, in their order and with
    numbers without gaps; the words of the others are forgotten too. (S2-51)"""
    names = ToolNames(8, first="")
    for now, name in enumerate(("a_one", "b_two", "c_three", "d_four", "e_five", "f_six", "g")):
        names.meet(name, now)
    names.number("thought_of", 7)
    names.number("a_one", 8)
    assert len(names) == 9
    assert names.full
    assert names.forget() == [0, 1, -1, 2, 3, 4, 5, 6, 7]
    assert list(names.numbers) == [
        "",
        "a_one",
        *("c_three", "d_four", "e_five", "f_six", "g"),
        "thought_of",
    ]
    assert len(names) == 8
    assert "b_two" not in names
    assert "two" not in names.telling
    assert "one" in names.telling


def test_common_words_tell_nothing() -> None:
    """A word of many names speaks for none of them, until most of them are forgotten; a tool that is
    only declared is spoken for by all of its words. (S2-50)"""
    names = ToolNames(14, first="")
    for now in range(COMMON + 1):
        names.meet(f"get_{'abcdefghijklmnop'[now] * 3}", now)
    assert names.shares(["get"], {}) == {}
    assert set(names.shares(["bbb"], {"bbb": ["see_bbb"]})) == {"get_bbb", "see_bbb"}
    names.meet("other", 99)
    assert names.full
    names.forget()
    assert "get_mmm" in names.shares(["get"], {})
