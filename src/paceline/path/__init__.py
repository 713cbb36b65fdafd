"""The one call path: everything Paceline runs goes through `CallPath.run`.

::

    Call --> look up ----hit-------------------------------------> Outcome --> observe
               | miss                                                 ^
             join in-flight? --> cold tier, lease --> admit --> execute, retry --> store
"""

from paceline.path.attempts import Attempts
from paceline.path.callpath import CallPath, Observer
from paceline.path.identity import ANYTHING, Identity, agent_tag
from paceline.path.job import Execution, Job

__all__ = [
    "ANYTHING",
    "Attempts",
    "CallPath",
    "Execution",
    "Identity",
    "Job",
    "Observer",
    "agent_tag",
]
