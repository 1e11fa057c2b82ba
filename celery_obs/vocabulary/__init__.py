"""
The words that every room shares: what a metric is, the headers that we add to messages, and what can be wrong.
"""
