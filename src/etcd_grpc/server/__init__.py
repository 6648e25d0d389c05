"""Servers: they join, say how they are and how busy, and leave without losing a call."""
