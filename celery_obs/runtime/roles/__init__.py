"""
What a process can be, one file each: a worker's main process, a process of its pool, beat, or a program that publishes, if anything.
"""
