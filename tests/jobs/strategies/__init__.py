"""Tests of the ways to train, side by side with each other and with plain NumPy."""
