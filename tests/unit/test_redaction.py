"""Secrets are masked wherever they stand, and nothing else is."""

import copy
import json
import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.redaction import MASK, Redactor, Secret, _masked

# Letters that the mask has none of, so that what is found is the secret and not the mask.
KNOWN = st.text("xyz019-+/é", min_size=4, max_size=20)
CLEAN = st.text("abc \n{}", max_size=20)
NESTED = st.recursive(
    st.none() | st.integers() | CLEAN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(CLEAN, inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=8,
)


def hide(secret: str, value: object, at: int) -> object:
    """The value with the secret somewhere in it."""
    text = f"a{secret}b"
    places: list[object] = [
        text,
        [value, text],
        (text, value),
        {"key": [text, {"deeper": text}]},
        {text: value},
        {text},
        frozenset({text}),
        text.encode(),
        {(text, 1): value},
        {text.encode(): value},
        {frozenset({text}): value},
        Secret(text),
    ]
    return places[at % len(places)]


def check_nothing_leaks(redactor: Redactor, secrets: list[str], value: object) -> None:
    """No secret is in any rendering of what the redactor gives back."""
    shown = redactor.data(value)
    for secret in secrets:
        assert secret not in str(shown)
        assert secret not in json.dumps(shown, default=str, ensure_ascii=False, skipkeys=True)


@given(st.lists(KNOWN, min_size=1, max_size=4), NESTED, st.integers(0, 20), st.integers(0, 3))
def test_a_known_secret_never_leaks(secrets: list[str], value: object, at: int, which: int) -> None:
    """A known secret is masked wherever it stands in plain data, keys and bytes included."""
    secret = secrets[which % len(secrets)]
    redactor = Redactor(map(Secret, secrets))
    check_nothing_leaks(redactor, [secret], hide(secret, value, at))
    assert secret not in redactor.text(f"before{secret}after{secret}")


@pytest.mark.parametrize("at", range(12))
def test_the_law_finds_a_leak(at: int) -> None:
    """A redactor that does not know the secret is found out in every place."""
    value = hide("xyz0", None, at)
    if isinstance(value, Secret):
        assert Redactor().data(value) == MASK
        return
    with pytest.raises(AssertionError):
        check_nothing_leaks(Redactor(), ["xyz0"], value)


@given(NESTED)
def test_clean_data_stays(value: object) -> None:
    """Data without secrets comes back equal, but for tuples, which come back as lists."""
    assert Redactor([Secret("hunter2")]).data(value) == _with_lists(value)


def _with_lists(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_with_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("password=hunter2", f"password={MASK}"),
        ("--db-password hunter2", f"--db-password {MASK}"),
        ('{"api_key": "k-123", "n": 1}', f'{{"api_key": {MASK}, "n": 1}}'),
        ("X-Exec-Token: abc.def", f"X-Exec-Token: {MASK}"),
        ("Authorization: Bearer abcdefgh123", f"Authorization: Bearer {MASK}"),
        ("postgres://ada:pa%20ss@db/x", f"postgres://ada:{MASK}@db/x"),
        ("key sk-0123456789abcdef!", f"key sk-{MASK}!"),
        ("ghp_0123456789abcdefghij", f"ghp_{MASK}"),
        ("AKIAIOSFODNN7EXAMPLE", f"AKIA{MASK}"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", f"eyJ{MASK}"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nrest",
            f"-----BEGIN RSA PRIVATE KEY-----{MASK}\nrest",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", f"-----BEGIN PRIVATE KEY-----{MASK}"),
        ("tool --password correcthorse x", f"tool --password {MASK} x"),
        ("--token 'two words' x", f"--token {MASK} x"),
        ("PASS=correct pwd = horse", f"PASS={MASK} pwd = {MASK}"),
        ("curl -u bob:SECRET x", f"curl -u bob:{MASK} x"),
        ("curl --user=bob:SECRET x", f"curl --user=bob:{MASK} x"),
        ('token="cut off', f"token={MASK} off"),
    ],
)
def test_credentials_are_known_by_their_form(text: str, masked: str) -> None:
    """What has the form of a credential is masked although nobody named it."""
    assert Redactor().text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the secret of success",
        "tokens: none were used"[:6],
        "git commit -m 'a token of thanks'",
        "https://example.org/a:b@c",
        "uname -a",
        "the basic idea",
        "sk-short",
        "tool --token --verbose",
        "PWD=/home/ada OLDPWD=/tmp compass=3",
        "ls -u a/b:c",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """Ordinary words are left as they are."""
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("my password is hunter2", f"my password is {MASK}"),
        ("My PASSWORD was Hunter2, I think", f"My PASSWORD was {MASK}, I think"),
        ("the password's hunter2", f"the password's {MASK}"),
        ("our passwords are hunter2 and hunter3", f"our passwords are {MASK}"),
        ("password for the shop is p@ssword", f"password for the shop is {MASK}"),
        ("it is set: password is now set to x9y8", f"it is set: password is now set to {MASK}"),
        ('the password is "swordfish"', f"the password is {MASK}"),
        ("the password is \u201copen sesame\u201d.", f"the password is {MASK}."),
        ("password is: 12345678", f"password is: {MASK}"),
        ("passphrase: correct horse battery", f"passphrase: {MASK}"),
        ("my pass phrase is c0rrect-h0rse", f"my pass phrase is {MASK}"),
        ("passcode = x", f"passcode = {MASK}"),
        ("the passcode was 99821", f"the passcode was {MASK}"),
        ("the PIN: 1234", f"the PIN: {MASK}"),
        ("My PIN code for the card is 4711.", f"My PIN code for the card is {MASK}."),
        ("pins are 1234 and 9876", f"pins are {MASK}"),
        ("the token is 83ab91cd", f"the token is {MASK}"),
        ("my secret key is k3y-abc", f"my secret key is {MASK}"),
        ("the API key: 9f8e7d", f"the API key: {MASK}"),
        ("my api keys are abc123d, xyz789a and qwe456r", f"my api keys are {MASK}"),
        ("my password\nis hunter2", f"my password\nis {MASK}"),
        (
            "Please change my password to Hunter2!x, ok?",
            f"Please change my password to {MASK}, ok?",
        ),
        (
            "reset the old password for the shop to h2o-x",
            f"reset the old password for the shop to {MASK}",
        ),
        ("Update my PIN to be 4711.", f"Update my PIN to be {MASK}."),
        ('set the passcode to "open sesame"', f"set the passcode to {MASK}"),
    ],
)
def test_a_secret_that_is_told_in_a_sentence_is_masked(text: str, masked: str) -> None:
    """A value that is called a password, PIN, token or the like is masked where it looks like no
    ordinary word, as the rest of the sentence is not. (S2-51)"""
    assert Redactor().text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the password is wrong",
        "reset my password please",
        "my password is not working!",
        "the password is 8 characters long",
        "passwords are 12-character words, 1000 times stronger",
        "passwords are 10000 characters at most",
        "the password is base64 encoded, then SHA-256 hashed",
        "the password was changed 3 days ago, the 2nd time",
        "the password was 2nd on the list",
        "forgot the password to my account, order 4711",
        "the password for order 4711 is wrong",
        "token limit is 4000",
        "the token is expired",
        "the token is 128000 tokens long",
        "tokens are 128000 at most",
        "is the API key valid?",
        "the secret is out",
        "the secret is 10,000 hours of practice",
        "the secret of success is 99% work",
        "secret santa is on 24/12/2024",
        "my PIN is wrong, it has 4 digits",
        "a PIN is needed for 4711",
        "pin 13 is high, and the pin is 1000 mm long",
        "spin: 4000, shipping is 4711",
        "I need the password to server1",
        "change my password to something safer, then book 4711",
        "set my password to at least 12 characters",
        "set the PIN to 8 digits",
        "reset my password, then go to gate b12",
        "setting a password to a1 is no good",
    ],
)
def test_what_is_said_about_secrets_stays(text: str) -> None:
    """Sentences about passwords and the like that tell none are left as they are. (S2-51)"""
    assert Redactor().text(text) == text


def test_a_key_gives_its_value_away() -> None:
    """A value is masked for the name of its key, whatever it looks like."""
    data = {"user": "ada", "API-Key": 5, "nested": [{"session_key": ["a"]}], "passwords": "kept"}
    assert Redactor().data(data) == {
        "user": "ada",
        "API-Key": MASK,
        "nested": [{"session_key": MASK}],
        "passwords": "kept",
    }


def test_the_longer_secret_is_masked_whole() -> None:
    """Where one secret begins another, nothing of the longer one stays."""
    redactor = Redactor([Secret("xyz0"), Secret("xyz0123")])
    assert redactor.text("xyz0123 xyz0") == f"{MASK} {MASK}"


def test_very_short_secrets_are_left_to_the_forms() -> None:
    """A secret of under four characters does not mask ordinary words."""
    assert Redactor([Secret("ab"), Secret("")]).text("about") == "about"


def test_masking_takes_linear_time() -> None:
    """Long text that nearly matches is masked about as fast as long text that does not."""
    pieces = (
        *("a", "token", "eyJ", "password ", "--token ", "-u a:", "a://", "token\t", "sk-"),
        *("a://x:", "bearer ", "pass ", "token='", 'token="', "-----BEGIN A"),
        *("password for a ", "pin is ", "password is a1b2 and ", "pass phrase:", "secret        "),
        *('my password is "', "password is 1111-", "api key is aaaaaaaaaaaa "),
        *("set a pin ", "change pin for to ", "reset password to be "),
    )
    texts = [piece * (200_000 // len(piece)) for piece in pieces]
    for text in (*texts, "eyJ-" * 300_000, "eyJaaaaaaaa." * 100_000):
        # Quadratic time would run into the test's time limit.
        assert len(Redactor().text(text)) <= 3 * len(text)


def test_a_secret_shows_itself_nowhere() -> None:
    """No rendering or copy of a Secret has its value; `reveal` has."""
    secret = Secret("hunter2")
    renderings = (
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>20}",
        repr([secret]),
    )
    assert all("hunter2" not in text for text in renderings)
    assert secret.reveal() == "hunter2"
    assert not hasattr(secret, "__dict__")
    for leak in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leak(secret)


def test_secrets_compare_by_value() -> None:
    """Secrets of one value are equal, in sets too; an empty one is false."""
    assert {Secret("a"), Secret("a")} == {Secret("a")}
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")
    assert Secret("a")


LETTERS = {"s": "sS\u017f", "k": "kK\u212a", "i": "iI\u0130\u0131"}
PIECES = [
    "password=x1", "api_key: x", "token x1", "pwd=a", "-u me:x", "--user=me:x", "bearer abcdefgh1",
    "Basic abcdefgh1", "http://u:p@h", "-----BEGIN PRIVATE KEY-----x", "sk-abcdefghij1",
    "ghp_abcdefghij", "gho_abcdefghij", "ghu_abcdefghij", "ghs_abcdefghij", "ghr_abcdefghij",
    "github_pat_abcdefghij", "xoxb-abcdefghij", "glpat-abcdefghij", "hf_abcdefghij",
    "AIzaabcdefghij", "npm_abcdefghij", "AKIAABCDEFGHIJKLMNOP", "ASIAABCDEFGHIJKLMNOP",
    "eyJabcdefgh.abcdefgh.x", "cookie=x", "authorization: x", "credential=x", "secret=x", " ", "word",
    "my password is h1dden", "pins are 4711", "secret key is s1dek1ck", "pass phrase: skis", "key is",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=3), st.randoms(use_true_random=False))
def test_looking_for_words_first_overlooks_nothing(pieces: list[str], rng: Random) -> None:
    """A form is masked however its letters are written, also by those that only look like them to who
    ignores their case."""
    text = "".join(rng.choice([one, *LETTERS.get(one.lower(), "")]) for one in " ".join(pieces))
    assert Redactor().text(text) == _masked(text)


def test_keys_are_judged_by_what_is_known() -> None:
    """A key that one redactor found clean is masked by another that knows it, and each time
    ."""
    data = {"alpha beta": 1}
    assert Redactor().data(data) == data
    knowing = Redactor([Secret("alpha beta")])
    assert [knowing.data(data) for _ in range(2)] == [{MASK: 1}] * 2
    assert [Redactor().data({"password": 1}) for _ in range(2)] == [{"password": MASK}] * 2
