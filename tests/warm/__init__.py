"""Ranks that start at once, for tests that ask what a rank computes and not how it comes to life.

Importing a framework takes a rank seconds, and most tests start many ranks for the sake of their numbers. Here one
process per framework imports it once (forge.py) and every rank is a fork of it: the launcher starts `python -m
jobs.worker` as ever, and in that process site/sitecustomize.py, found through PYTHONPATH, hands folder, environment,
open files, cores and niceness to the forge, waits, and ends as the rank has ended. Nothing of the product knows of it.

    pytestmark = pytest.mark.usefixtures("warm_ranks")      # a whole file; conftest.py has the fixtures

Tests of starting, pinning, killing, resuming and of what a rank imports do without.
"""
