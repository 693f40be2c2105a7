"""HTTP/1.1 for whoever asks: the client and the download of endorsements (docs/adr/0013-client-transport.md).

``message`` reads an answer and knows no socket; ``route`` says where a URL leads; ``blocking`` and ``tasks``
move the bytes. Redirects are not followed and the environment is not read.
"""
