"""From what was built to what a client may demand: Reference Values (RFC 9334 §2.3) of a server.

``enclave_conf``, ``heap``, ``onnx_file`` and ``preflight`` check the inputs of a build before it begins; they
run on the builder's own machine with the standard library alone. ``trusted_files``, ``manifest`` and
``manifest_rules`` make the manifest of an SGX enclave and refuse an insecure one, ``sigstruct`` and
``enclave_info`` say what was signed, ``build_steps`` puts these together inside an image build. ``snp``
computes the launch digest of a confidential VM. What comes out is a policy file that ``--policy`` takes.
Nothing here is needed to run a server or a client.
"""
