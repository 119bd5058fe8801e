"""The base case beside a launch: a process of its own that trains by turns with the ranks, on their cores."""
