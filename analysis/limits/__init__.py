"""Why each curve bends: launches ─▶ costs of a worker's time ─▶ causes with intervals ─▶ sentences."""
