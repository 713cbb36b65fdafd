"""What a run spent its time on: tree, critical path, totals, and forms to look at them. Pure."""
