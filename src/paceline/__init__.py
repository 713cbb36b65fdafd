"""Paceline: the performance layer for AI agents."""
