"""What a node's machine does beside its ranks: the first of them starts a sampler with a plan, which writes
telemetry-HOST.jsonl."""
