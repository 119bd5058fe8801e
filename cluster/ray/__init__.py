"""Trials on a Ray cluster: the launcher talks to a child process, which talks to Ray, where an actor for each rank
starts it."""
