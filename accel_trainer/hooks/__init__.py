"""What watches a run and asks: stop early, save, write numbers down, show progress, heed signals."""
