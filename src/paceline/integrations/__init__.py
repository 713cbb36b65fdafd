"""Paceline in the places where people already are. Each needs the extra of its name."""

__all__: list[str] = []
