"""What may run: rules, and the decision on one command."""
