"""
The sidecar about itself: what it could not read, count or keep.
"""
