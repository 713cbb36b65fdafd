"""Paceline's agents and figures as slash commands of a Discord bot (`paceline[discord]`)."""

__all__: list[str] = []
