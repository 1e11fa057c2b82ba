"""
Collectors: each makes one page of what it knows, when it is asked.
"""
