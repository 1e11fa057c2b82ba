"""
Rate limits: how often a channel may be asked, by the whole cluster.
"""
