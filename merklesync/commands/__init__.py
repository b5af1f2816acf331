"""The commands, one a module, each named as it is typed.

Begin with ``sync``.  A module holds what its command says in --help, the checks of its options, and what it
prints.  ``options`` and ``revision_option`` parse what several commands take; ``stores`` opens stores and
gives the fields that the JSON documents about them have.  The work itself is done in ``files``,
``following``, and the packages below.
"""
