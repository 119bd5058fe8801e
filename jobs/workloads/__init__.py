"""What is timed: a workload's part of a trial, and the life of a rank that runs it.

Each is one file that is found by its name (jobs/contract/trial.py): TRIAL is its part, `run` its life. A rank starts
(startup.py), gives batches to its strategy between two readings of a clock (meter.py), and leaves step lines and a
report (reporting.py).
"""
