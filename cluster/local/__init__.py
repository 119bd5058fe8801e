"""Trials on this machine: each rank of one is a process, kept until its end."""
