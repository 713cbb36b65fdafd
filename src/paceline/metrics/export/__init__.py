"""Figures and spans in the forms that other systems read."""
