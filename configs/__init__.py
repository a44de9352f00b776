"""Configurations: one file for every published row, and small ones that run anywhere."""
