"""What all settings share: frozen, strict models, bounded numbers, names of the arguments.

The comment after a field is what `pivot COMMAND --help` shows. A choice between parts is a union
tagged by `kind`. Settings of `prepare-frames` and `prepare-audio` live in `video_prep.settings`.
No module of this folder imports torch.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from tyro.conf import Positional, arg

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

# Positional arguments, named in the usage line as the journey names them.
Shards = Positional[Annotated[str, arg(metavar="SHARDS")]]
TestShards = Positional[Annotated[str, arg(metavar="TEST_SHARDS")]]
RunFolder = Positional[Annotated[str, arg(metavar="RUN")]]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values cannot change after the check."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
