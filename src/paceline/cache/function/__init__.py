"""`cached`: what stands in front of a function, and what stands behind it."""
