"""A replica and its peers: what ``follow`` does all the time, and ``status`` once.

Begin with ``follower``, which runs a manager and, if wanted, a server.  ``root_source`` reads the roots to
go to, ``events`` prints those that are reached, ``root_hook`` runs a command for each.  ``peers`` asks peers
for their heads, ``store_status`` compares these with a store, and ``status_text`` says the result in a
sentence.
"""
