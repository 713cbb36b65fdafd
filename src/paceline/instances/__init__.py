"""What stands behind an instance: a function, a process of its own, an agent or a model elsewhere."""
