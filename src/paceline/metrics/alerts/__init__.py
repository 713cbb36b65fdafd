"""Alerts: rules on figures, and those who are told when one holds. Rules are pure, sinks thin."""
