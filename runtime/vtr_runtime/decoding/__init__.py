"""Where clips are decoded: in this process, or in processes of their own."""

from .base import Cut, Decoder
from .here import DecoderHere
from .processes import DecoderProcesses

__all__ = ["Cut", "Decoder", "DecoderHere", "DecoderProcesses"]
