"""Endorsements (RFC 9334 §8.2) from the vendors' services: AMD's KDS and Intel's PCS, or a PCCS in its place.

Nothing here is called unless the caller chose so (:class:`~confonnx.attestation.endorse.options.Mode`): by
default a client uses what the server sent along, and needs no network. ``amd_kds`` and ``intel_pcs`` say what
to ask for and read what comes back, without any I/O; ``download`` asks; ``cache`` keeps; ``endorser`` puts
them together. What comes of it has the media types of a bundle's endorsements and goes the same way: into
``verify.appraise``, which trusts none of it before it has checked every signature and date. So neither a
service, the network nor the cache can make a verifier accept anything; at worst they make it refuse.
"""
