"""The instances of all processes that share a home: how each stands, and what operators want of it.

::

    process --- publishes how its instances stand --->  instances.sqlite  <--- shows --- operator
            <-- applies what is wanted of them --------                   <--- wishes --
"""

from paceline.roster.file import Roster
from paceline.roster.following import Follower, following
from paceline.roster.records import State, Status, Wish, WishKind

__all__ = ["Follower", "Roster", "State", "Status", "Wish", "WishKind", "following"]
