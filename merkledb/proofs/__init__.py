"""Making proofs, and verifying them: what a peer sends is believed here, or nowhere.

``prover`` cuts a proof at its limits; ``range_verifier`` needs nothing but the root, ``change_verifier``
the local content too.  Begin with ``kernel.pure_verify``, and the one rule about stubs.
"""
