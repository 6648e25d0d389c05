"""Serving: what a process does that answers calls."""
