"""`TieredCache`: tiers one below the other, of which exactly one holds a value."""
