"""Planned runs, the executors that do them, and what is done with finished runs."""
