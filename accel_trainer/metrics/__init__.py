"""Losses and metrics that know what was observed."""

FORECAST_METRICS = ("loss", "mse", "mae", "rmse", "r2")
"""What an evaluation of a forecaster logs, each after ``val/``."""
