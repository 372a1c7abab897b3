"""Trackers that show a run's numbers: Weights & Biases first, and every other one Accelerate knows."""
