"""
Packs: what belongs to one system beside ours, and is written only where it is asked for.
"""
