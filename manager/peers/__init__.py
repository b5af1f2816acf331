"""Talking to one peer: its address, the client's side of the protocol, and how well it answers.

Nothing here decides what is fetched, or looks into a proof.  ``conversation`` moves bytes, ``client`` asks on
it, ``probe`` asks what a peer is; ``throughput`` measures what the way to it carries, ``health`` says when it
may be asked again.  Begin with ``client``.
"""
