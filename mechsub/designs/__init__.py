"""Experiments that several studies share."""
