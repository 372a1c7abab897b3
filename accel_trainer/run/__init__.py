"""A run from its options to its result: the rooms that entry points assemble from everything else."""
