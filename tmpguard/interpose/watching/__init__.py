"""The calls of an invocation that only watches: the original's own, judged afterwards (C2.5)."""
