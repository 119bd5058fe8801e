"""Scaling laws: a curve's launches ─▶ each law's parameters with intervals, and what they say."""
