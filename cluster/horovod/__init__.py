"""Horovod: its source is fetched, changed and built once for this environment; launchers ask only what is
installed."""
