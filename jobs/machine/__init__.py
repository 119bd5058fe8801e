"""This machine: what of its cores, GPUs, TPU and networks a rank may use, and what it is and can do at most, for its
report."""
