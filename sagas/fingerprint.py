"""What of a definition is stored with each saga that it starts: its version, and a code for each step in order.

By its code a worker finds the step again among those of a later definition. The text is what `definition_version`
holds, such as `1.x7Qpb0aZ`: version 1, two steps. Its column has 64 characters, hence the limits here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Together with the dot and fifteen codes they fill the column.
HIGHEST_VERSION: Final = 999
#: A longer definition has one code for all its steps: it is recognized as a whole or not at all.
MOST_STEPS: Final = 15
_CODE_CHARACTERS: Final = 4
_WHOLE: Final = "*"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The definition that a saga was started with.

    Attributes:
        version: the one that its class declared.
        codes: one for each step in order; a single one for a long definition; none if they were not written down.
    """

    version: int
    codes: tuple[str, ...]

    @classmethod
    def of(cls, version: int, codes: Sequence[str]) -> Fingerprint:
        """Return that of a definition whose steps have these codes."""
        if len(codes) > MOST_STEPS:
            return cls(version, (_WHOLE + hashlib.sha256("".join(codes).encode()).hexdigest()[:16],))
        return cls(version, tuple(codes))

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Return what was stored; a text without a version is from before there were any, and tells no steps."""
        version, dot, codes = text.partition(".")
        if not (dot and version.isdecimal()):
            return cls(1, ())
        if codes.startswith(_WHOLE):
            return cls(int(version), (codes,))
        starts = range(0, len(codes), _CODE_CHARACTERS)
        return cls(int(version), tuple(codes[start : start + _CODE_CHARACTERS] for start in starts))

    @property
    def of_long_definition(self) -> bool:
        """Whether one code stands for all the steps."""
        return self.codes[:1] != () and self.codes[0].startswith(_WHOLE)

    def __str__(self) -> str:
        return f"{self.version}.{''.join(self.codes)}"


def step_code(name: str, *, pivot: bool, can_compensate: bool) -> str:
    """Return the code of a step: of its name and of what decides which way a saga may go after it."""
    facts = f"{name}\n{pivot}\n{can_compensate}".encode()
    return base64.urlsafe_b64encode(hashlib.sha256(facts).digest()[:3]).decode()
