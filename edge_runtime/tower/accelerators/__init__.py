"""Runs the tower's graphs of one picture size on accelerators, each by its vendor's public runtime."""
