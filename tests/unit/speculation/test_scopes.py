"""Among whom habits are learnt."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Caller
from paceline.speculation.scopes import EVERYBODY, circle_of, circles_of, is_shared, said, user_of

NAMES = st.none() | st.text(max_size=8)
CALLERS = st.builds(Caller, NAMES, st.text(max_size=4), NAMES)


def test_a_circle_narrows_where_there_is_no_name() -> None:
    """Habits are shared as is asked for; without a tenant they are the user's, without a user the
    session's alone. (S2-51)"""
    ada = Caller("ada", "s1", "acme")
    assert circle_of(ada, "all") == EVERYBODY
    assert circle_of(ada, "tenant") == "tenant acme"
    assert circle_of(ada, "user") == "user acme/ada"
    assert circle_of(Caller("ada", "s1"), "tenant") == "user ada"
    assert circle_of(Caller(None, "s1"), "user") == "session s1"
    assert circles_of(ada) == ("user acme/ada", "tenant acme", "")


def test_no_name_passes_for_another() -> None:
    """What a user or a tenant is called cannot make one circle of two. (S2-51)"""
    one, other = Caller("b/c", "s", "a"), Caller("c", "s", "a/b")
    assert circle_of(one, "user") != circle_of(other, "user")
    assert circle_of(Caller("a/b", "s"), "user") != circle_of(Caller("b", "s", "a"), "user")
    assert circle_of(Caller(None, "s", "user a"), "tenant") != circle_of(Caller("a"), "user")
    assert [user_of(circle_of(each, "user")) for each in (one, other)] == ["b/c", "c"]


def test_what_is_of_several_people_is_told_apart() -> None:
    """The circle of all and those of tenants are shared; those of users and sessions are not. (S2-51)"""
    ada = Caller("ada", "s1", "acme")
    assert [is_shared(circle) for circle in circles_of(ada)] == [False, True, True]
    assert not is_shared(circle_of(Caller(None, "s1"), "user"))


@given(one=CALLERS, other=CALLERS)
def test_no_two_users_learn_from_one_another(one: Caller, other: Caller) -> None:
    """Two callers have one circle of users only if they are one user of one tenant, or of one session
    where no user is known, whatever they are called. (S2-51)"""
    same = circle_of(one, "user") == circle_of(other, "user")
    if one.user is None and other.user is None:
        assert same == (one.session == other.session)
    else:
        assert same == ((one.user, one.tenant) == (other.user, other.tenant))


@given(caller=CALLERS)
def test_the_user_of_a_circle_is_known(caller: Caller) -> None:
    """From its name can be told whose a circle is; one of several people is nobody's. (S2-51)"""
    assert user_of(circle_of(caller, "user")) == caller.user
    assert user_of(circle_of(caller, "all")) is None
    assert said(circle_of(caller, "user"))
    assert said(EVERYBODY) == "everybody"
