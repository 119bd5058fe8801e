"""What the results mean: a folder is loaded into frames, these are measured, fitted, explained and judged, and all
of it is drawn and reported. Reads the results format only; needs no training framework."""
