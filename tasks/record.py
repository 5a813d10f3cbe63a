"""What every record of Magister has in common: strict fields, immutable."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A strict, immutable record: an unknown field is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
