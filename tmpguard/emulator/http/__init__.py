"""The proxy: from a client's connection to one of several instances, and back."""
