"""
The demo: a whole installation on one machine, for a look.
"""
