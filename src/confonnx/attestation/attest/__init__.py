"""The Attester's side (RFC 9334 §3): finds the TEE that the server runs in and collects its evidence. This
is the only part of ``attestation`` that touches devices; a client never imports it.
"""
