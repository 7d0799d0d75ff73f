"""Scores of maps: one small function each, tensor in, tensor out."""
