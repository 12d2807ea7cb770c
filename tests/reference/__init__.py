"""The published formulas written down literally, one scalar at a time, to test the library against.

Nothing here imports the library, and nothing in the library imports this.
"""
