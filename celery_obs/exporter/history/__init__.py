"""
The history: what the sidecar remembers of its own page, two hours of it, in one file of a fixed size.
"""
