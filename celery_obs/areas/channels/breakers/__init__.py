"""
Circuit breakers: a channel that fails is left alone for a while, by the whole cluster.
"""
