"""What the API says when it cannot do what was asked: numbered problems (RFC 9457).

Refusals of the ledger keep their own number, name and remedy; 9xx are the API's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from adapters.api_json import dumped
from domain.refusal import CODES, Code, Refused

NOT_FOUND: Final = Code(901, "not_found", "Check the id; it may be beyond the position shown.")
BAD_PARAMETER: Final = Code(902, "bad_parameter", "Correct the parameter that is named.")
BAD_CURSOR: Final = Code(
    903, "bad_cursor", "Use `next` of the last page with the same path and filters."
)
BODY_TOO_LARGE: Final = Code(904, "body_too_large", "Send one signed input, within its size limit.")
WRONG_MEDIA_TYPE: Final = Code(
    905, "wrong_media_type", "Send the signed bytes as application/octet-stream."
)
POSITION_NOT_REACHED: Final = Code(
    906, "position_not_reached", "Ask again later; the read models follow the ledger."
)
TOO_MANY_REQUESTS: Final = Code(907, "too_many_requests", "Send again after `Retry-After` seconds.")
LOG_UNAVAILABLE: Final = Code(
    908, "log_unavailable", "Nothing was appended; send the same bytes again."
)
APPEND_UNKNOWN: Final = Code(
    909,
    "append_unknown",
    "The input may or may not be on the log; send the same bytes again, they run once.",
)
NOT_ALLOWED: Final = Code(910, "method_not_allowed", "Use a method and path of /v1/openapi.json.")
NO_PROOF: Final = Code(
    911, "no_payout", "Nothing is payable to this account by that epoch; ask for a later one."
)
PROOF_MISMATCH: Final = Code(
    912, "proof_mismatch", "The read model disagrees with the ledger: rebuild it and run the audit."
)
NOT_WRITABLE: Final = Code(913, "read_only", "Send inputs to an API that serves a log.")

NOT_ANSWERED: Final = Code(
    914,
    "not_answered",
    "The ledger took note of the input without an answer: check the key's role, the session's start"
    " time and that the number is within the window.",
)

MONEY_STOPPED: Final = Code(
    915,
    "money_stopped",
    "An event could not be added to the sums, so they are not shown; everything else is. Who runs "
    "this API sees why with `synor projections status`, mends it, and runs `synor projections "
    "retry` or `rebuild`.",
)
REBUILDING: Final = Code(
    916,
    "rebuilding",
    "The read models are being made anew for this version of the program; ask again later.",
)

ROWS_UNAVAILABLE: Final = Code(
    917, "rows_unavailable", "The database of the read models does not answer; ask again later."
)

RULES_NOT_HERE: Final = Code(
    918,
    "rules_not_here",
    "Install a release that has the version everywhere first: whoever lacks it stops when it is in "
    "force, and nothing takes it back.",
)

BODY_TOO_SLOW: Final = Code(
    919, "body_too_slow", "Send the whole body at once; nothing of it was taken."
)

_STATUS: Final[Mapping[int, int]] = {
    NOT_FOUND.number: 404,
    BAD_PARAMETER.number: 400,
    BAD_CURSOR.number: 400,
    BODY_TOO_LARGE.number: 413,
    BODY_TOO_SLOW.number: 408,
    WRONG_MEDIA_TYPE.number: 415,
    POSITION_NOT_REACHED.number: 504,
    TOO_MANY_REQUESTS.number: 429,
    LOG_UNAVAILABLE.number: 503,
    APPEND_UNKNOWN.number: 503,
    NOT_ALLOWED.number: 405,
    NO_PROOF.number: 404,
    PROOF_MISMATCH.number: 500,
    NOT_WRITABLE.number: 405,
    NOT_ANSWERED.number: 422,
    MONEY_STOPPED.number: 503,
    REBUILDING.number: 503,
    ROWS_UNAVAILABLE.number: 503,
    RULES_NOT_HERE.number: 422,
}


class Problem(Exception):
    """An answer that is a problem; ``more`` are further members of its object."""

    def __init__(self, code: Code, detail: str = "", **more: Any) -> None:
        """Say which, and the figures that explain it."""
        super().__init__(f"{code.number} {code.name}: {detail}")
        self.code = code
        self.detail = detail
        self.more = more

    @classmethod
    def refused(cls, refused: Refused, **more: Any) -> Problem:
        """A refusal of the ledger."""
        return cls(refused.code, refused.detail, **more)

    @property
    def status(self) -> int:
        """The status of HTTP: a refusal of the ledger is the sender's to mend."""
        if self.code.number in _STATUS:
            return _STATUS[self.code.number]
        return 400 if self.code.number < 200 else 422

    def response(self) -> Response:
        """The problem as JSON."""
        headers = {}
        if "retry_after_s" in self.more:
            headers["Retry-After"] = str(self.more["retry_after_s"])
        return Response(
            dumped(
                {
                    "code": self.code.number,
                    "name": self.code.name,
                    "detail": self.detail,
                    "remedy": self.code.remedy,
                    **self.more,
                }
            ),
            status_code=self.status,
            media_type="application/problem+json",
            headers=headers,
        )


def code_of(number: int) -> Code:
    """The code of a refusal on the ledger; one of a newer program is shown by its number."""
    known = CODES.get(number)
    return known or Code(number, f"refusal_{number}", "Ask a newer program what it means.")
