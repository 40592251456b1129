"""The report of many requests: made from those of single ones, merged, and shown as text and as a page."""
