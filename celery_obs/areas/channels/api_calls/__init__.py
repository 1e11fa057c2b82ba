"""
API calls: what is asked of a channel, and what it answers.
"""
