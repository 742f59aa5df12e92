"""Bridges: messages of another broker come into a queue here, or go from one there; one loop for all of them."""
