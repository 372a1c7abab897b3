"""From sensor files to batches: sources, table, split, scale, windows."""
