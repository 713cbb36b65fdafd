"""The engine: a session as an explicit state machine, and the turns in which a model uses tools.

Pure:     machine (states), conversation, loops, limits, recovery, schedule, concurrency, journal
Driver:   session, turn, pipeline, batch
Words:    states, events, protocols
"""
