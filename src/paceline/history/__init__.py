"""The record of every call: what was asked, on whose behalf, and what came of it."""
