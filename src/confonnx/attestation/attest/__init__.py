"""The Attester's side (RFC 9334 §3): finds the TEE that the server runs in and collects its evidence. This
is the only part of ``attestation`` that touches devices; a client never imports it.

``detect`` picks the Attester, one module for each TEE collects, ``bound`` looks at what was collected, and
``endorsing`` fetches what vouches for it where the operator wants that. The kernel's interfaces
(``devices``, ``tsm``), the TPM's (``tpm_transport``, ``tpm_commands``, ``tpm_quoting``) and Azure's
(``imds``) are modules of their own, and parameters of the Attesters.
"""
