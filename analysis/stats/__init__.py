"""Intervals and tests for few launches: rates and times of them in, estimates with bounds and p values out."""
