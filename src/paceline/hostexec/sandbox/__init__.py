"""How it runs: isolation, limits, processes."""
