"""Trials as jobs of SLURM: options and size make a script, the queue runs it, and in the job each trial is a step
whose end is told."""
