"""Losses and metrics that know what was observed."""
