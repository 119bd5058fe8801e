"""Numbers ─▶ pictures, a file for each; the numbers themselves come from measures, workloads and laws."""
