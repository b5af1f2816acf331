"""Talking to one peer: its address, the client's side of the protocol, and what is known of it.

Nothing here decides what is fetched, or looks into a proof.  ``conversation`` moves bytes, ``client`` asks on
it, ``probe`` asks what a peer is; ``throughput`` measures what the way to it carries, ``health`` says when it
may be asked again, ``known_peer`` what it is doing and what is expected of it.  Begin with ``client``.
"""
