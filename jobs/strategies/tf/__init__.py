"""TensorFlow: the plain loop, and what wraps it to train on several workers."""
