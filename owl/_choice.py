"""The base of soft_op and pool_op."""

import enum


class Choice(int, enum.Enum):
    """Also an int, because inspect.signature() shows no other objects as defaults of compiled functions."""
