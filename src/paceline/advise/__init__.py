"""What to change, with the evidence for it: rules over the history of calls. Pure."""
