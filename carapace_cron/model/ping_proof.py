"""What shows that a ping comes from who has its monitor's secret: a signature over address, body and time.

    X-Carapace-Timestamp: 1769774400
    X-Carapace-Signature: v1=<HMAC-SHA256 of "<timestamp>.<path and query>.<SHA-256 of the body>", hex>

The scheme of our own webhooks, with the address in it, as that is where a ping says what it says. The body
comes in as its digest: it may be large, and the secret is known only where the ping is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

TIMESTAMP_HEADER = "X-Carapace-Timestamp"
SIGNATURE_HEADER = "X-Carapace-Signature"
TOLERANCE_SECONDS = 300  # clocks differ; a captured request goes stale

_VERSION = "v1="


@dataclass(frozen=True, slots=True)
class Proof:
    """What a sender shows, not checked yet. `signature`: as its header has it."""

    timestamp: str
    address: str  # path and query, as they were sent
    body_digest: str  # SHA-256, hex
    signature: str

    def holds(self, secret: str, now: datetime) -> bool:
        """Whether who knows `secret` has signed it, not long ago.

        >>> from datetime import UTC
        >>> now = datetime.fromtimestamp(1769774400, UTC)
        >>> proof = Proof("1769774400", "/ping/x", "ab", sign("secret", "1769774400", "/ping/x", "ab"))
        >>> proof.holds("secret", now), proof.holds("another", now)
        (True, False)
        """
        if not (self.timestamp.isascii() and self.timestamp.isdigit() and len(self.timestamp) < 12):
            return False
        if abs(now.timestamp() - int(self.timestamp)) > TOLERANCE_SECONDS:
            return False
        expected = sign(secret, self.timestamp, self.address, self.body_digest)
        return hmac.compare_digest(expected.encode(), self.signature.encode("utf-8", "replace"))


def sign(secret: str, timestamp: str, address: str, body_digest: str) -> str:
    """The value of the signature's header."""
    text = f"{timestamp}.{address}.{body_digest}"
    return _VERSION + hmac.new(secret.encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
