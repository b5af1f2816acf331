"""Talking to one peer: its address, the client's side of the protocol, and how well that goes.

Nothing here knows of work or of proofs.  ``throughput`` measures what the way to the peer carries, ``health``
says when it may be asked again, ``announced_head`` whether its heads are followed.  Begin with ``client``.
"""
