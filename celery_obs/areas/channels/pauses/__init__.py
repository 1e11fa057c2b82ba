"""
Pauses: channels that an operator stopped.
"""
