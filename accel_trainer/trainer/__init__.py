"""The training loop: receives objects, knows nothing of bridges, trackers or files."""
