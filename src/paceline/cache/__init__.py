"""Results of calls, kept and found again: in memory, in a file, and while they are under way."""
