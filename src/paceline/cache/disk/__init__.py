"""The warm tier: results in a file that processes share, and the leases of those being made."""
