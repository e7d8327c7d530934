"""Engines built from a bundle's graphs for one device: their record, the TensorRT builder, and the device's recipe."""

from .record import EngineRecord, PrecisionUsed, check_record, core_hash, find_engines, read_record, write_record

__all__ = ["EngineRecord", "PrecisionUsed", "check_record", "core_hash", "find_engines", "read_record", "write_record"]
