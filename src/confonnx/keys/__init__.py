"""The server's keys. ``ring`` derives the key pairs of every epoch from one group secret that it ratchets
forward, so replicas that share the secret agree on every later key without talking, and nobody recovers an
earlier one (D8 of the architecture).
"""
