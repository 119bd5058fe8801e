"""A rank as a process: its keeper starts it and sees its end, its rendezvous finds the others, its watchdog ends it if
it hangs."""
