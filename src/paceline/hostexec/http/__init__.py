"""The same over HTTP: service, client, and what guards them."""
