"""Azure's instance metadata service (IMDS), where a confidential VM gets what vouches for its hardware.

Link-local and plain HTTP; whatever comes of it is signed by AMD or Intel, and clients verify it.
"""

from __future__ import annotations

import base64
import binascii
import json
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

import msgspec

from confonnx.errors import TeeError

BASE_URL: Final = "http://169.254.169.254"

_TIMEOUT_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 256 * 1024


class _Certification(msgspec.Struct, frozen=True):
    vcek: str = msgspec.field(name="vcekCert")
    chain: str = msgspec.field(name="certificateChain")


class _TdQuote(msgspec.Struct, frozen=True):
    quote: str


def get_amd_certificates(base_url: str) -> bytes:
    """PEM of VCEK, ASK and ARK of this VM's processor. Raises ``TeeError``."""
    answer = _ask(base_url, "GET", "/metadata/THIM/amd/certification", None)
    try:
        certification = msgspec.json.decode(answer, type=_Certification)
        return f"{certification.vcek.strip()}\n{certification.chain.strip()}\n".encode("ascii")
    except ValueError as error:
        raise TeeError(f"IMDS at {base_url} gave no certificates of an AMD processor: {error}") from error


def get_td_quote(base_url: str, td_report: bytes) -> bytes:
    """The TD quote for a TDREPORT of this VM. Raises ``TeeError``."""
    report = base64.urlsafe_b64encode(td_report).rstrip(b"=").decode()
    answer = _ask(base_url, "POST", "/acc/tdquote", json.dumps({"report": report}))
    try:
        text = msgspec.json.decode(answer, type=_TdQuote).quote.rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise TeeError(f"IMDS at {base_url} gave no TD quote: {error}") from error


def _ask(base_url: str, method: str, path: str, body: str | None) -> bytes:
    url = urlsplit(base_url)
    connection = HTTPConnection(url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS)
    headers = {"Metadata": "true", "Content-Type": "application/json"}
    try:
        connection.request(method, f"{url.path}{path}", body, headers)
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES + 1)
    except (OSError, HTTPException) as error:
        raise TeeError(
            f"IMDS at {base_url}{path} cannot be asked: {error}; is it blocked for this container?"
        ) from error
    finally:
        connection.close()
    if response.status != 200 or len(answer) > _MAX_ANSWER_BYTES:
        raise TeeError(
            f"IMDS at {base_url}{path} answered with status {response.status} and {len(answer)} bytes, "
            f"expected 200 and at most {_MAX_ANSWER_BYTES}"
        )
    return answer
