"""Numbers and words of trials that ask for more than steps of training: time to accuracy, calls of the model,
ingest."""
