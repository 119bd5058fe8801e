"""A results folder ─▶ tidy frames, and a list of what in it is not trusted: all that is read of it is read here."""
