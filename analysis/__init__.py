"""What the results mean. Reads the results format only; needs no training framework."""
