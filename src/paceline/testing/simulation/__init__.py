"""Balancing in virtual time: real strategies, simulated language models and their users.

Put together:  Simulation, Server, Engine, Client
Work:          Traffic of Recorded requests or of made-up `conversations`, Agents with Habits; any Workload of Work
Trouble:       Incident, Trouble, flapping
Compared with: Oracle
What came:     Run of Story, Load, Sample; Summary
"""

from paceline.testing.simulation.agents import Agents, Habits
from paceline.testing.simulation.endpoint import BLOCK_TOKENS, Endpoint, Engine
from paceline.testing.simulation.incidents import Incident, Trouble, flapping
from paceline.testing.simulation.oracle import Oracle
from paceline.testing.simulation.run import Load, Run, Sample, Summary
from paceline.testing.simulation.simulation import (
    Client,
    Equip,
    MakeStrategy,
    Server,
    Simulation,
    Workload,
)
from paceline.testing.simulation.traffic import Recorded, Traffic, conversations
from paceline.testing.simulation.work import Story, Work

__all__ = [
    "BLOCK_TOKENS",
    "Agents",
    "Client",
    "Endpoint",
    "Engine",
    "Equip",
    "Habits",
    "Incident",
    "Load",
    "MakeStrategy",
    "Oracle",
    "Recorded",
    "Run",
    "Sample",
    "Server",
    "Simulation",
    "Story",
    "Summary",
    "Traffic",
    "Trouble",
    "Work",
    "Workload",
    "conversations",
    "flapping",
]
