"""Prediction: what a session will call next, with which arguments, and how sure that is."""
