"""Where trials run: a study becomes a plan, the driver works through it, and a launcher (local, slurm, ray) runs each
trial."""
