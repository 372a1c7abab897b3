"""What is learned: a task turns a batch into a loss and evaluations into metrics."""
