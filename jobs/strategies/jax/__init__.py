"""JAX: the plain loop, and the same over several devices."""
