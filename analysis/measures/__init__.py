"""Frames ─▶ quantities of training with intervals: throughput and efficiency, parts of a step, spread, energy,
roofline."""
