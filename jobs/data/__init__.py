"""What ranks train on: files, or noise, become arrays that stay in memory, and every rank its slice of each batch."""
