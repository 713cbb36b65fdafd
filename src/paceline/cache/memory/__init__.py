"""The hot tier: results in this process."""
