"""The ways to train, one file each, found by name (jobs/contract/catalog.py).

INFO at the top of a strategy's file says what must be known of it without its framework; STRATEGY at the end is the
class, which does what interface.py says: batches of indices go in, losses come out. A framework is a room, in which
plain.py is the base case that the others wrap.
"""
