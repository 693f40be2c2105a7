"""Proof of what a server is, from both sides. ``statement`` is what it says, ``bundle`` how that travels
with evidence and endorsements, ``verify`` how evidence becomes claims and claims become attested keys,
``policy`` what a client accepts, ``result`` what an appraisal vouches for, ``attest`` how the server
collects evidence.
"""
