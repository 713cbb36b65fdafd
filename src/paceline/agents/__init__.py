"""Agents: what a module or function has to look like, and the registry that keeps them."""
