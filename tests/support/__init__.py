"""Test kit: shared vectors, fake authorities, running servers."""
