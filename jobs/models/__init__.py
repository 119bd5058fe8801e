"""Models without a framework, a file each: layers ─▶ shapes, initial weights and cost, from which strategies build
theirs."""
