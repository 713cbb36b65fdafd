"""Speculation: what is likely to be asked for next is run before it is, as cache warming."""
