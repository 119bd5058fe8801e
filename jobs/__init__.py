"""What one rank does: the trial, its data and model, the strategies, the timed loop, the results."""
