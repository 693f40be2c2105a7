"""The Verifier's side (RFC 9334 §3): one module a TEE turns evidence and endorsements into claims, and
``appraise`` alone turns a bundle and a policy into attested keys. Everything here is pure: bytes and a
clock value go in, a value or an error comes out.
"""
