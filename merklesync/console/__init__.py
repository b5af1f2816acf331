"""What a command prints, and which signals end it.

Begin with ``output``: facts for people, JSON for programs, notes on standard error.  ``bar`` draws progress;
``signals`` runs trio in a process that ends in good order at Ctrl-C and SIGTERM.  Nothing here knows a
command.
"""
