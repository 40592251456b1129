"""Provocations of each row of the table of remedies."""
