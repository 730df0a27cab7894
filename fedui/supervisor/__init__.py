"""`fedui up` and `fedui demo`: all processes of one machine, started, watched and ended together.

Runs before Django's settings are read: it makes the environment that they are read from.
"""
