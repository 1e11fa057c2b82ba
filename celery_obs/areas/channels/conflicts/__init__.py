"""
Conflicts: two sides that disagree, and what was sold twice.
"""
