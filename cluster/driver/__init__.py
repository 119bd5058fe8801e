"""A study on a launcher: what of it can run, launched in random order until it is measured, and shown meanwhile."""
