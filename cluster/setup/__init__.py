"""What this environment can run, what it lacks, and what mends it: for `scaling doctor`, launchers and notebooks."""
