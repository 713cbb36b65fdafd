"""Tools: what a model may ask for, checked, run and measured."""
