"""Figures of calls: how many, how they ended, where results came from, how long it took."""
