"""Where trials run: the study, the launchers, and the driver that works through them."""
