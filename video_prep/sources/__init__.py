"""Readers of what a user can give as input: files, lists, data sets' own lists, cut clips."""
