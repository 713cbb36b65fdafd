"""Sessions of the engine on the one call path: their models, their tools, and what they go on from."""
